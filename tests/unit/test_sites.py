"""The list of sites: what people may write, and what they are told when they may not."""

from __future__ import annotations

import pytest

from ansible_collections.portico.web.plugins.plugin_utils import modules
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.sites import certificates, check_settings, check_together, normalise_sites, read_files, wanted_certificates

APPS = [{"name": "shop", "static": {"/static/": "staticfiles"}}, {"name": "blog", "static": None}]


def site(**keys):
    return {"name": "shop", "server_names": ["shop.example.com"], **({} if "locations" in keys else {"app": "shop"}), **keys}


def location(path, does, target, rest="", number=1):
    unsaid = dict.fromkeys(("fallback", "spoken", "tries", "waits", "sends", "max_body_size", "timeout", "unbuffered", "access_log", "extra_config", "access", "limits", "wait", "cache", "policy"))
    guarded = {"rules": [], "pages": False, "is_server": False, "told": [], "uploads": False, "bare": False, "guarded": False, "verifies": False, "is_first": False}
    return {"path": path, "exact": False, "number": number, "says": False, "does": does, "family": "proxy", "target": target, "rest": rest, "repeated": [], "repeated_pages": [], **unsaid, **guarded}


def test_an_app_brings_its_static_folders():
    (complete,) = normalise_sites([site(server_names=["Shop.example.com", "www.shop.example.com"])], APPS)
    assert complete == {
        "name": "shop",
        "server_names": ["shop.example.com", "www.shop.example.com"],
        "canonical": "shop.example.com",
        "aliases": ["www.shop.example.com"],
        "tls": True,
        "certificate": "shop",
        "issuer": "acme",
        "promise": "$portico_promise",
        "own_promise": None,
        "sends": (True, [], []),
        "says": False,
        **dict.fromkeys(("access", "limits", "wait", "cache", "clients")),
        **{"rules": [], "pages": False, "is_server": True, "family": "proxy", "verifies": False, "asks": [], "error_pages": [], "maintenance": None, "access_log": None, "moved": {}, "trailing_slash": None, "redirects": None, "redirects_file": None, "refuse_agents": None},
        "max_body_size": None,
        "timeout": None,
        "unbuffered": None,
        "locations": [
            location("/static/", "static", "/srv/portico/shop/live/release/source/staticfiles/"),
            location("/", "app", "shop", number=2),
        ],
        "extra_config": None,
        "template": None,
    }


def test_an_app_below_a_path_brings_its_static_folders_there():
    (complete,) = normalise_sites([site(locations=[{"path": "/", "root": "/srv/www"}, {"path": "/shop/", "app": "shop"}])], APPS)
    assert [(each["path"], each["does"]) for each in complete["locations"]] == [("/", "root"), ("/shop/static/", "static"), ("/shop/", "app")]


@pytest.mark.parametrize(
    ("target", "rest"),
    [("https://example.com", "$request_uri"), ("https://example.com/", ""), ("https://example.com/new?a=b", ""), ("https://example.com?a=b", "")],
)
def test_a_redirect_keeps_the_path_unless_it_has_one(target, rest):
    (complete,) = normalise_sites([{"name": "old", "server_names": "old.example.com", "redirect": target}], APPS)
    assert complete["locations"] == [location("/", "redirect", target, rest)]


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ("shop", "nginx_sites is a text. Make it a list"),
        ({"shop": {}}, "nginx_sites is a dictionary. Make it a list"),
        (["shop"], 'nginx_sites, entry 1: "shop" is a text. Write its keys'),
        ([{"server_names": ["a.test"]}], 'nginx_sites, entry 1, key "name": is missing'),
        ([site(server_name="a.test")], 'entry "shop", key "server_name": "a.test" is given to a key that does not exist. Did you mean "server_names"?'),
        ([site(tls="maybe")], 'entry "shop", key "tls": "maybe" is neither true nor false'),
        ([site(server_names=None)], 'entry "shop", key "server_names": is missing'),
        ([site(server_names=[])], 'key "server_names": [] is empty'),
        ([site(server_names=[80])], 'key "server_names": 80 is a number, not text. Write it in quotes'),
        ([site(server_names=["a.test; return 418"])], 'key "server_names": "a.test; return 418" is not a host name'),
        ([site(server_names=["a.test\nreturn 418"])], "has a control character (U+000A)"),
        ([site(server_names=["bücher.example"])], "Write xn--bcher-kva.example."),
        ([site(server_names=["https://a.test"])], "without scheme, port or path"),
        ([site(server_names=["*.a.test"])], "is a pattern, and the first name is the canonical one"),
        ([site(server_names=["a.test", "A.test"])], '"a.test" stands there twice'),
        ([site(app="shpo")], 'entry "shop", key "app": "shpo" is not an app of gunicorn_apps. Did you mean "shop"?'),
        ([site(app="x")], '"x" is not an app of gunicorn_apps. Known are: blog, shop.'),
        ([site(), site(server_names=["b.test"])], 'nginx_sites, entry 2, key "name": "shop" is the name of entry 1 too'),
        ([site(), site(name="two")], 'entry "two", key "server_names": "shop.example.com" belongs to the site "shop" already'),
        ([site(proxy="http://127.0.0.1:1")], 'key "app and proxy": are given together. A site does one thing'),
        ([{"name": "a", "server_names": "a.test"}], 'key "app or upstream or proxy or root or alias or redirect or answer or locations": is missing'),
        ([site(locations=[{"path": "/"}])], 'key "locations[0].app or upstream or proxy or root or alias or redirect or answer": is missing'),
        ([site(locations=[{"path": "/x", "pxy": "http://a:1"}])], 'key "locations.pxy": "http://a:1" is given to a key that does not exist. Did you mean "proxy"?'),
        ([site(locations=[{"path": "/a", "root": "/a"}, {"path": "/b", "root": "b"}])], 'key "locations[1].root": "b" is not an absolute path'),
        ([site(locations=[{"path": "/", "root": "/a"}, {"path": "/", "root": "/b"}])], '"/" is the path of two locations'),
        ([site(locations=[{"path": "/a/../b", "root": "/a"}])], '"/a/../b" is not the path of a URL'),
        ([site(app=None, proxy="ftp://127.0.0.1:8000")], "is not a URL that begins with http://, https://, fastcgi://, grpc://, grpcs://, uwsgi:// or suwsgi:// and a host"),
        ([site(app=None, proxy="http://127.0.0.1:99999")], "is not a URL that begins with http://"),
        ([site(app=None, proxy="http://$host")], "has a character that no URL has"),
        ([site(app=None, redirect="/elsewhere")], "is not a URL that begins with http:// or https:// and a host"),
        ([site(app=None, root="/srv/../etc")], "is not an absolute path"),
        ([site(locations=[{"path": "/caf%C3%A9/", "root": "/srv"}])], 'key "locations.path": "/caf%C3%A9/" is percent-encoded, and nginx compares paths as they are read. Write it so: "/café/".'),
        ([site(locations=[{"path": "/a%20b/", "root": "/srv"}])], "is percent-encoded, and nginx compares paths as they are read. A path with what that stands for is not possible here."),
        ([site(maintenance={"open": ["/%73tatus"]})], 'key "maintenance.open": "/%73tatus" is percent-encoded'),
        ([site(app=None, root="/srv", fallback="/%69ndex.html")], 'key "fallback": "/%69ndex.html" is percent-encoded'),
        ([site(tls=False, hsts={"include_subdomains": True})], 'key "hsts": {"max_age": 63072000, "include_subdomains": true, "preload": false} is a promise that browsers hear over TLS alone, and this site has tls: false'),
        ([site(backend={"host": "inner.example.com"})], 'key "backend": is for a proxy, and this site has none'),
        ([site(name="../../etc/passwd")], "is not a name"),
        ([site(certificate="a/b")], 'key "certificate": "a/b" is not a name'),
        ([site(issuer="self-signed")], 'key "issuer": "self-signed" is not one of its choices. Did you mean "self_signed"?'),
        (
            [site(certificate="both"), site(name="two", server_names=["b.test"], certificate="both", issuer="own")],
            'entry "two", key "issuer": "own" is not what the site "shop" says of the certificate "both" that they share ("acme"). Say the same in both',
        ),
    ],
)
def test_a_mistake_names_entry_key_value_and_cure(sites, message):
    with pytest.raises(PorticoError) as error:
        normalise_sites(sites, APPS)
    assert message in str(error.value)


SHARING = [
    site(server_names=["www.a.test", "a.test"]),
    site(name="plain", server_names=["b.test"], tls=False, certificate="both", issuer="self_signed"),
    site(name="one", server_names=["d.test"], certificate="both", issuer="own"),
    site(name="two", server_names=["c.test", "*.c.test"], certificate="both", issuer="own"),
]


def test_sites_want_a_certificate_each_or_share_one():
    assert wanted_certificates(SHARING) == [
        {"name": "shop", "domains": ["www.a.test", "a.test"], "issuer": "acme"},
        {"name": "both", "domains": ["d.test", "c.test", "*.c.test"], "issuer": "own"},
    ]


def test_a_certificate_is_published_with_the_names_that_it_serves():
    published = certificates(normalise_sites(SHARING, APPS))
    assert list(published.items()) == [("both", ["*.c.test", "c.test", "d.test"]), ("shop", ["a.test", "www.a.test"])]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"extra_config": "}\nserver {"}, 'key "extra_config": "}\\nserver {" closes a block that it did not open. See its line 1: "}".'),
        ({"extra_config": "gzip on;\nclient_max_body_size 1m"}, "has a directive that does not end. Put a ';' at its end. See its line 2: \"client_max_body_size 1m\"."),
        ({"extra_config": "gzip on;\x1b"}, "has a control character (U+001B) in it"),
        ({"extra_config": ["gzip on;"]}, 'key "extra_config"'),
        ({"locations": [{"path": "/", "root": "/srv", "extra_config": "if ($a) {"}]}, 'key "locations.extra_config": "if ($a) {" opens a block that it does not close'),
        ({"app": None}, 'key "app or upstream or proxy or root or alias or redirect or answer or locations": is missing'),
    ],
)
def test_text_that_would_reach_out_of_its_block_is_refused(keys, message):
    with pytest.raises(PorticoError) as told:
        normalise_sites([site(**keys)], APPS)
    assert message in str(told.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("extra_config", text) for text in ("}", "gzip on", ["gzip on;"], None)),
        *((key, port) for key in ("http_port", "https_port") for port in (0, 65536, -1, "http", True, "80;", None)),
        *(("scope", name) for name in ("", "../x", "a b", "-x")),
    ],
)
def test_a_variable_that_is_no_list_is_checked_too(key, value):
    with pytest.raises(PorticoError, match=f"^nginx_{key}: "):
        check_settings({key: value})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10.0.0.1", 'nginx_trusted_proxies: "10.0.0.1" is no list'),
        ([10], "has 10, which is no text. Write it in quotes."),
        (["cloudfare"], 'has "cloudfare", which is neither an address nor a network. Write one such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32. Did you mean cloudflare?'),
        (["akamai"], "The CDNs that are known by name are cloudflare and fastly."),
        (["0.0.0.0/0"], 'has "0.0.0.0/0", with which every visitor could say who it is'),
        (["10.0.0.1/8"], "Write 10.0.0.0/8 for the network"),
        (["10.0.0.0/8; return 418"], "is neither an address nor a network"),
    ],
)
def test_proxies_that_are_none_are_told(value, message):
    with pytest.raises(PorticoError) as told:
        check_settings({"trusted_proxies": value})
    assert str(told.value).startswith("nginx_trusted_proxies: ") and message in str(told.value)


def test_the_proxy_protocol_needs_proxies():
    check_together({"proxy_protocol": True, "trusted_proxies": ["10.0.0.7"]})
    with pytest.raises(PorticoError, match="nginx_proxy_protocol: true has no meaning without nginx_trusted_proxies"):
        check_together({"proxy_protocol": True, "trusted_proxies": []})


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.0/8", "::1"])
def test_a_proxy_on_the_host_itself_does_not_speak_the_proxy_protocol(address):
    with pytest.raises(PorticoError) as told:
        check_together({"proxy_protocol": True, "trusted_proxies": ["192.0.2.1", address]})
    assert str(told.value).startswith(f"nginx_proxy_protocol: {address} of nginx_trusted_proxies is this host")
    check_together({"proxy_protocol": True, "trusted_proxies": ["192.0.2.1", "127.0.0.3"]})
    check_together({"trusted_proxies": [address]})


def test_variables_that_are_right_pass():
    check_settings({"http_port": 8080, "https_port": "8443", "extra_config": "gzip off;", "scope": "team-a", "sites": []})
    check_settings({"trusted_proxies": ["10.0.0.7", "2001:db8::/32", "fastly"], "trusted_header": "X-Real-IP"})


def test_a_site_with_a_template_need_not_say_what_it_does(tmp_path):
    (complete,) = normalise_sites([site(app=None, template="own.conf.j2")], APPS)
    assert complete["locations"] == [] and complete["template"] == "own.conf.j2"
    with pytest.raises(PorticoError, match=r'key "template": "own.conf.j2" is not a file on the controller'):
        read_files([complete], lambda path: str(tmp_path / path), None)
    (tmp_path / "own.conf.j2").write_text("")
    read_files([complete], lambda path: str(tmp_path / path), None)


@pytest.mark.parametrize(("value", "message"), [("brotli", "is no list"), (["Brotli"], 'has "Brotli", which is not the name of a module'), ([1], "which is not the name"), (["a b"], "which is not the name")])
def test_what_is_no_module_is_told(value, message):
    with pytest.raises(PorticoError) as told:
        check_settings({"modules": value})
    assert str(told.value).startswith("nginx_modules: ") and message in str(told.value)


def test_modules_are_packages():
    assert modules.packages(["brotli", "stream", "http-brotli-filter"]) == ["libnginx-mod-http-brotli-filter", "libnginx-mod-http-brotli-static", "libnginx-mod-stream"]
