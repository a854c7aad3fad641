"""The list of upstreams, and backends that sites name by their address."""

from __future__ import annotations

import pytest

from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.sites import check_settings, normalise_sites
from ansible_collections.portico.web.plugins.plugin_utils import named, urls
from ansible_collections.portico.web.plugins.plugin_utils.upstreams import normalise_upstreams

ONE = {"address": "10.0.0.1:8000"}
TWO = {"address": "10.0.0.2:8000"}


def upstream(*servers, **keys):
    return {"name": "api", "servers": list(servers or [ONE]), **keys}


@pytest.mark.parametrize(
    ("upstreams", "message"),
    [
        ([{"name": "api"}], 'key "servers": is missing'),
        ([{"name": "api", "servers": []}], 'key "servers": [] is empty'),
        ([upstream(), upstream()], 'key "name": "api" is the name of entry 1 too'),
        ([upstream(ONE, ONE)], '"10.0.0.1:8000" stands there twice'),
        ([upstream({**ONE, "backup": True})], "has only servers that are backup or down"),
        ([upstream(ONE, {**TWO, "backup": True}, balance="address")], 'key "servers[1].backup": true is not possible with the balance "address"'),
        ([upstream({**ONE, "weight": 0})], 'key "servers[0].weight": 0 is not possible. Write a number from 1 to 1000.'),
        ([upstream(balance="roundrobin")], 'Did you mean "round_robin"?'),
        ([upstream(keepalive="many")], "is not a whole number"),
        ([upstream(tries=0)], 'key "tries": 0 is not possible. Write a number from 1 to 100.'),
        ([upstream(tls=True, host="10.0.0.1")], '"10.0.0.1" is an address, and nginx verifies certificates by name'),
        ([upstream(tls=True, certificate_name="10.0.0.1")], 'key "certificate_name": "10.0.0.1" is an address'),
        ([upstream(tls=True, verify=False, ca="/etc/ca.pem")], 'key "ca": "/etc/ca.pem" has no meaning with verify: false'),
        ([upstream({**ONE, "weight": 10**30})], "is not possible. Write a number from 1 to 1000."),
        ([upstream(), {**upstream(), "name": "API"}], '"API" is "api" to nginx. Choose another name.'),
        ([upstream(tls=True, protocol="fastcgi", host="a.test")], 'key "tls": true is not possible with FastCGI'),
        ([upstream(script="/srv/a.php")], 'key "script": "/srv/a.php" is for FastCGI, and the protocol is http'),
        ([upstream(protocol="uwsgi", keepalive=4)], 'key "keepalive": 4 is not possible with uwsgi'),
        ([upstream(protocol="scgi")], 'key "protocol": "scgi" is not one of its choices'),
        ([upstream(tls=True)], 'key "certificate_name": is missing. With tls the servers\' certificates are verified'),
        ([upstream({"address": "10.0.0.1"})], '"10.0.0.1" is not an address. Write HOST:PORT'),
        ([upstream({"address": "http://10.0.0.1:80"})], "is not an address"),
        ([upstream({"address": "[2001:db8::g]:80"})], "is not an address"),
        ([upstream({"address": "[1:2]:80"})], "has something in brackets that is no IPv6 address"),
        ([upstream({"address": "a b:80"})], "has a host that is not a host name"),
        ([upstream({"address": "unix:run/a.sock"})], "is not an absolute path"),
        ([upstream({"address": "unix:/run/a b.sock"})], "is not the path of a unix socket"),
        ([upstream({"address": "a.test:80; down"})], "is not an address"),
    ],
)
def test_a_mistake_names_entry_key_value_and_cure(upstreams, message):
    with pytest.raises(PorticoError) as told:
        normalise_upstreams(upstreams)
    assert str(told.value).startswith("nginx_upstreams, entry ") and message in str(told.value)


@pytest.mark.parametrize("address", ["10.0.0.1:8000", "[2001:db8::1]:8000", "backend.example.com:80", "unix:/run/wiki.sock"])
def test_an_address_comes_back_as_it_is(address):
    (complete,) = normalise_upstreams([upstream({"address": address})])
    assert complete["servers"][0]["address"] == address


def spoken(upstreams=(), **keys):
    site = {"name": "shop", "server_names": ["shop.example.com"], **keys}
    (complete,) = normalise_sites([site], [], named=named.normalise({"upstreams": list(upstreams)}))
    return complete["locations"][0]["spoken"]


def test_an_upstream_that_nobody_has_is_told():
    with pytest.raises(PorticoError, match=r'key "upstream": "apii" is not an upstream of nginx_upstreams. Did you mean "api"\?'):
        spoken([upstream()], upstream="apii")


@pytest.mark.parametrize(
    ("keys", "tls"),
    [
        ({"proxy": "http://127.0.0.1:8000"}, None),
        ({"proxy": "https://a.example.com"}, {"name": "a.example.com", "ca": "/etc/ssl/certs/ca-certificates.crt"}),
        ({"proxy": "https://10.0.0.1", "backend": {"certificate_name": "a.example.com"}}, {"name": "a.example.com", "ca": "/etc/ssl/certs/ca-certificates.crt"}),
        ({"proxy": "https://10.0.0.1", "backend": {"host": "b.example.com", "ca": "/etc/ca.pem"}}, {"name": "b.example.com", "ca": "/etc/ca.pem"}),
        ({"proxy": "https://[fd00::1]:8443", "backend": {"verify": False}}, {"name": None, "ca": None}),
        ({"proxy": "https://a.example.com", "backend": {"verify": False}}, {"name": "a.example.com", "ca": None}),
        # nginx compares a scheme without regard to case.
        ({"proxy": "HTTPS://a.example.com"}, {"name": "a.example.com", "ca": "/etc/ssl/certs/ca-certificates.crt"}),
        ({"proxy": "grpcs://a.example.com:443"}, {"name": "a.example.com", "ca": "/etc/ssl/certs/ca-certificates.crt"}),
        ({"proxy": "suwsgi://10.0.0.1:3031", "backend": {"host": "b.example.com"}}, {"name": "b.example.com", "ca": "/etc/ssl/certs/ca-certificates.crt"}),
        ({"proxy": "grpc://a.example.com:80"}, None),
        ({"upstream": "api"}, {"name": "in.example.com", "ca": "/etc/ssl/certs/ca-certificates.crt"}),
    ],
)
def test_a_certificate_is_verified_unless_it_is_said(keys, tls):
    assert spoken([upstream(tls=True, host="in.example.com")], **keys)["tls"] == tls


def test_a_locations_backend_is_its_sites_but_for_what_it_says():
    site = {
        "name": "shop",
        "server_names": ["shop.example.com"],
        "backend": {"ca": "/etc/ca.pem", "host": "a.example.com"},
        "locations": [{"path": "/b/", "proxy": "https://10.0.0.1/c/", "backend": {"host": "b.example.com"}}],
    }
    (complete,) = normalise_sites([site], [])
    location = complete["locations"][0]["spoken"]
    assert location == {
        "family": "proxy",
        "before": "https://",
        "address": "https://10.0.0.1/c/",
        "asked": [("proxy_set_header", "Host", "b.example.com"), ("proxy_set_header", "X-Forwarded-Host", "$host$portico_port")],
        "script": None,
        "host": "b.example.com",
        "led_back": [("/c/", "/b/"), ("http://b.example.com/c/", "/b/"), ("https://b.example.com/c/", "/b/"), ("http://b.example.com/", "/"), ("https://b.example.com/", "/")],
        "tls": {"name": "b.example.com", "ca": "/etc/ca.pem"},
        "is_shared": True,
        "is_looked_up": False,
    }


def test_a_location_can_have_verified_what_its_site_does_not():
    site = {
        "name": "shop",
        "server_names": ["shop.example.com"],
        "backend": {"verify": False},
        "locations": [{"path": "/", "proxy": "https://a.example.com"}, {"path": "/pay/", "proxy": "https://pay.example.com", "backend": {"verify": True, "ca": "/etc/pay.pem"}}],
    }
    (complete,) = normalise_sites([site], [])
    assert [location["spoken"]["tls"]["ca"] for location in complete["locations"]] == [None, "/etc/pay.pem"]
    site["backend"], site["locations"][1]["backend"] = {"ca": "/etc/ca.pem"}, {"verify": False}
    (complete,) = normalise_sites([site], [])
    assert [location["spoken"]["tls"]["ca"] for location in complete["locations"]] == ["/etc/ca.pem", None]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"proxy": "https://10.0.0.1"}, 'key "proxy": "https://10.0.0.1" has no host name, and nginx verifies certificates by name'),
        ({"proxy": "grpcs://10.0.0.1:443"}, 'key "proxy": "grpcs://10.0.0.1:443" has no host name'),
        ({"proxy": "fastcgi://127.0.0.1"}, "has something behind fastcgi:// that is not an address. Write HOST:PORT"),
        ({"proxy": "uwsgi://127.0.0.1:3031/wiki/"}, "A path is possible with http:// and https:// alone"),
        ({"proxy": "grpc://unix:run/a.sock"}, "has something behind grpc:// that is not an absolute path"),
        ({"proxy": "fastcgi:127.0.0.1:9000"}, "is not a URL that begins with http://, https://, fastcgi://"),
        ({"proxy": "http://127.0.0.1:1", "backend": {"script": "/srv/a.php"}}, 'key "backend.script": "/srv/a.php" is for FastCGI, and http:// is HTTP'),
        ({"locations": [{"path": "/", "proxy": "uwsgi://127.0.0.1:1", "backend": {"script": "/srv/a.php"}}]}, 'key "locations[0].backend.script": "/srv/a.php" is for FastCGI'),
        ({"proxy": "fastcgi://127.0.0.1:1", "backend": {"script": "a.php"}}, 'key "backend.script": "a.php" is not an absolute path'),
        ({"proxy": "grpc://127.0.0.1:1", "tls": False}, 'key "proxy": "grpc://127.0.0.1:1" speaks gRPC, whose clients nginx hears over TLS alone'),
        ({"proxy": "grpc://127.0.0.1:1", "unbuffered": ["answers"]}, 'key "unbuffered": ["answers"] has no meaning for gRPC'),
        ({"proxy": "http://127.0.0.1:8080/public"}, 'has a path that takes the place of /, and without a slash at the end of both'),
        ({"locations": [{"path": "/wiki", "proxy": "http://127.0.0.1:8080/public/"}]}, 'key "locations[0].proxy": "http://127.0.0.1:8080/public/" has a path'),
        ({"proxy": "https://a.test", "backend": {"verify": False, "ca": "/etc/ca.pem"}}, "has no meaning with verify: false"),
        ({"locations": [{"path": "/wiki", "proxy": "http://127.0.0.1:1/public"}]}, "without a slash at the end of both visitors could leave it"),
        *(({"proxy": url}, "has a query, a fragment or a user in it, or a colon without a port") for url in ("http://a:", "http://@a", "http://a?", "http://a/#", "http://me@a")),
        ({"proxy": "http://a.test//x/"}, "is not the path of a URL"),
        ({"root": "/srv", "locations": [{"path": "/", "root": "/srv"}]}, "are given together"),
        ({"fallback": "/index.html", "locations": [{"path": "/", "root": "/srv"}]}, "is for files. Say it in the location that has them"),
        ({"proxy": "https://10.0.0.1", "backend": {"host": "a.test:x"}}, "has something behind its colon that is no port"),
        ({"root": "/srv", "max_body_size": "999999999999g"}, "is not a size"),
        ({"answer": {"text": '"' * 3000}}, "is longer than 4000 bytes, which nginx does not take"),
        ({"proxy": "http://unix:run/a.sock"}, "is not an absolute path"),
        ({"proxy": "http://unix:/run/a.sock:wiki"}, "is not the path of a URL"),
        ({"proxy": "http://unix:/run/a.sock:/wi ki"}, "has a character that no URL has"),
        ({"locations": [{"path": "/a", "root": "/a", "backend": {"host": "a.test"}}]}, 'key "locations[0].backend": is for a proxy'),
        ({"proxy": "http://a.test", "fallback": "/index.html"}, 'key "fallback": "/index.html" is for files. Give it together with root.'),
        ({"root": "/srv", "fallback": "index.html"}, "is not a file below root"),
        ({"locations": [{"path": "/media", "alias": "/srv/media"}]}, 'key "locations[0].path": "/media" has no slash at its end, and nginx would lead visitors out'),
        ({"answer": {"status": 301}}, 'has a status that is no answer of its own'),
        ({"answer": {"text": "$host"}}, "has a '$', which nginx would read as a variable"),
        ({"root": "/srv", "max_body_size": "banana"}, 'key "max_body_size": "banana" is not a size'),
        ({"root": "/srv", "timeout": 0}, 'key "timeout": 0 is not a number of seconds between 1 and 86400'),
        ({"root": "/srv", "unbuffered": ["answer"]}, 'Did you mean "answers"?'),
    ],
)
def test_what_a_location_cannot_do_is_told(keys, message):
    with pytest.raises(PorticoError) as told:
        spoken(**keys)
    assert message in str(told.value)


@pytest.mark.parametrize(
    ("keys", "family", "address"),
    [
        ({"proxy": "http://127.0.0.1:8000"}, "proxy", "http://127.0.0.1:8000"),
        ({"proxy": "FastCGI://unix:/run/php.sock"}, "fastcgi", "unix:/run/php.sock"),
        ({"proxy": "uwsgi://Wiki.example.com:3031"}, "uwsgi", "uwsgi://wiki.example.com:3031"),
        ({"proxy": "grpc://[::1]:50051"}, "grpc", "grpc://[::1]:50051"),
    ],
)
def test_a_url_says_the_protocol(keys, family, address):
    found = spoken(**keys)
    assert (found["family"], found["address"]) == (family, address)


@pytest.mark.parametrize(
    ("keys", "before", "keepalive"),
    [({}, "http://", 16), ({"protocol": "grpc"}, "grpc://", 16), ({"protocol": "uwsgi"}, "uwsgi://", 0), ({"protocol": "fastcgi", "script": "/srv/a.php"}, "", 0), ({"keepalive": 0}, "http://", 0)],
)
def test_an_upstream_says_the_protocol(keys, before, keepalive):
    assert spoken([upstream(**keys)], upstream="api")["before"] == before
    (complete,) = normalise_upstreams([upstream(**keys)])
    assert complete["keepalive"] == keepalive


def test_what_a_site_says_in_the_words_of_http_a_location_of_another_protocol_says_in_its_own():
    site = {
        "name": "shop",
        "server_names": ["shop.example.com"],
        "timeout": 90,
        "unbuffered": ["answers"],
        "hide_headers": ["X-Powered-By"],
        "locations": [{"path": "/", "proxy": "http://127.0.0.1:1"}, {"path": "/u/", "proxy": "uwsgi://127.0.0.1:2", "timeout": 5}, {"path": "/g/", "proxy": "grpc://127.0.0.1:3"}],
    }
    (complete,) = normalise_sites([site], [])
    said = [(each["family"], each["timeout"], each["unbuffered"], each["sends"] and each["sends"].hidden) for each in complete["locations"]]
    assert said == [("proxy", None, None, None), ("uwsgi", 5, ["answers"], ["X-Powered-By"]), ("grpc", 90, None, ["X-Powered-By"])]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"proxy": "http://10.0.0.1:80", "backend": {"resolve": True}}, 'key "backend.resolve": true is for names, and http://10.0.0.1:80 has none'),
        ({"locations": [{"path": "/", "proxy": "http://unix:/run/a.sock", "backend": {"resolve": True}}]}, 'key "locations[0].backend.resolve": true is for names'),
        ({"proxy": "http://a.test/b/", "backend": {"resolve": True}}, "has a path, which nginx cannot put in another's place where it looks the host up"),
    ],
)
def test_what_cannot_be_looked_up_is_told(keys, message):
    with pytest.raises(PorticoError) as told:
        spoken(**keys)
    assert message in str(told.value)


def test_names_alone_are_looked_up_again():
    site = {"name": "shop", "server_names": "a.test", "backend": {"resolve": True}, "locations": [{"path": f"/{at}/", "proxy": url} for at, url in enumerate(["http://b.test", "http://10.0.0.1/wiki/", "grpc://c.test:1"])]}
    (complete,) = normalise_sites([site], [])
    # With a dot it is another name than the one that nginx may know since its start.
    assert [(each["spoken"]["is_looked_up"], each["spoken"]["address"]) for each in complete["locations"]] == [(True, "http://b.test."), (False, "http://10.0.0.1/wiki/"), (True, "grpc://c.test.:1")]
    (pool,) = normalise_upstreams([upstream({"address": "a.test:80"}, ONE, {"address": "unix:/run/a"}, resolve=True)])
    assert [server["is_looked_up"] for server in pool["servers"]] == [True, False, False]
    with pytest.raises(PorticoError, match='key "resolve": true is for names, and its servers have none'):
        normalise_upstreams([upstream(resolve=True)])


@pytest.mark.parametrize(("written", "read"), [("192.0.2.53", "192.0.2.53"), ("127.0.0.1:5353", "127.0.0.1:5353"), ("2001:db8::53", "[2001:db8::53]"), ("[2001:db8::53]:53", "[2001:db8::53]:53")])
def test_a_server_for_names_is_an_address(written, read):
    assert urls.resolver(written) == read


@pytest.mark.parametrize("value", ["dns.example.com", "192.0.2.53:0", "192.0.2.53:99999", "fe80::1%eth0", "", "192.0.2.53; x", "[2001:db8::53", "$host"])
def test_what_is_no_server_for_names_is_told(value):
    with pytest.raises(PorticoError, match="^nginx_resolvers: .* which .*is not the address of a server for names|^nginx_resolvers: .*control"):
        check_settings({"resolvers": [value]})
