"""The list of streams: what is passed on without being looked into.

PORTICO_HOSTILE_VALUES says how many hostile values are tried; `make test-all` says 10000.
"""

from __future__ import annotations

import os

import crossplane
import hostile
import pytest

from ansible_collections.portico.web.plugins.plugin_utils import entries, named, render
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.sites import normalise_sites
from ansible_collections.portico.web.plugins.plugin_utils.streams import normalise_streams, refuse_ports_of_sites, refuse_those_of_others

NAMED = {
    "upstreams": [
        {"name": "pool", "servers": ["10.0.0.1:5432", "10.0.0.2:5432"], "balance": "least_connections"},
        {"name": "over_tls", "servers": ["10.0.0.1:5432"], "tls": True, "host": "db.example.com"},
        {"name": "by_path", "servers": ["10.0.0.1:80"], "balance": "uri"},
        {"name": "calls", "servers": ["10.0.0.1:80"], "protocol": "grpc"},
    ],
    "access": [{"name": "office", "allow": ["192.0.2.0/24"]}, {"name": "staff", "users": [{"name": "anna", "password": "correct horse"}]}],
}
for each in NAMED["upstreams"]:
    each["servers"] = [{"address": address} for address in each["servers"]]
KNOWN = named.normalise(NAMED)
SITES = normalise_sites([{"name": "shop", "server_names": "shop.example.com", "root": "/srv"}, {"name": "plain", "server_names": "plain.example.com", "root": "/srv", "tls": False}], [])
HOST = render.Host((1, 26, 3), (3, 5, 1))
COUNT = int(os.environ.get("PORTICO_HOSTILE_VALUES", "1200"))
DATABASE = {"name": "database", "port": 5432, "proxy": "10.0.0.5:5432"}


def normalised(*streams):
    return normalise_streams(list(streams), SITES, KNOWN)


def directives(stream, tmp_path):
    """Return what a parser that others wrote reads of a stream's file: its upstream, and its server."""
    (complete,) = normalised(stream)
    (text,) = render.stream_files([complete], HOST).values()
    file = tmp_path / "stream.conf"
    file.write_text(text)
    answer = crossplane.parse(str(file), single=True, check_ctx=False, check_args=False)
    assert answer["status"] == "ok", answer["errors"]
    return {each["directive"]: [(inner["directive"], *inner["args"]) for inner in each["block"]] for each in answer["config"][0]["parsed"] if each["directive"] != "#"}


def test_connections_are_passed_on(tmp_path):
    assert directives(DATABASE, tmp_path) == {"server": [("listen", "5432"), ("listen", "[::]:5432"), ("proxy_pass", "10.0.0.5:5432"), ("proxy_timeout", "600s")]}


def test_all_that_a_stream_can_say(tmp_path):
    said = directives(
        {"name": "broker", "port": 8883, "address": "192.0.2.7", "upstream": "over_tls", "access": "office", "certificate": "shop", "timeout": 60, "send_proxy_protocol": True}, tmp_path
    )
    assert said["upstream"] == [("zone", "stream~broker", "68k"), ("server", "10.0.0.1:5432", "weight=1", "max_fails=1", "fail_timeout=10s")]
    assert said["server"] == [
        ("listen", "192.0.2.7:8883", "ssl"),
        ("ssl_certificate", "portico/certificates/shop/fullchain.pem"),
        ("ssl_certificate_key", "portico/certificates/shop/privkey.pem"),
        ("allow", "192.0.2.0/24"),
        ("deny", "all"),
        ("proxy_pass", "stream~broker"),
        ("proxy_next_upstream_tries", "3"),
        ("proxy_timeout", "60s"),
        ("proxy_protocol", "on"),
        ("proxy_ssl", "on"),
        ("proxy_ssl_protocols", "TLSv1.2", "TLSv1.3"),
        ("proxy_ssl_server_name", "on"),
        ("proxy_ssl_name", "db.example.com"),
        ("proxy_ssl_verify", "on"),
        ("proxy_ssl_verify_depth", "4"),
        ("proxy_ssl_trusted_certificate", "/etc/ssl/certs/ca-certificates.crt"),
    ]


def test_datagrams_are_passed_on(tmp_path):
    said = directives({"name": "names", "port": 53, "protocol": "udp", "address": "2001:db8::7", "upstream": "pool"}, tmp_path)
    assert said["server"][0] == ("listen", "[2001:db8::7]:53", "udp", "reuseport") and ("least_conn",) in said["upstream"]


def test_nginx_has_a_stream_block_only_where_somebody_has_streams():
    assert "stream {" not in render.base({}, HOST)["nginx.conf"] and "streams.conf" not in render.base({}, HOST)
    assert "include portico/streams/*.conf;" in render.base({}, HOST, has_streams=True)["nginx.conf"]


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ([{"name": "a", "port": 1}], 'key "proxy or upstream": is missing'),
        ([{**DATABASE, "upstream": "pool"}], 'key "proxy or upstream": are given together'),
        ([{"name": "a", "proxy": "10.0.0.5:1"}], 'key "port": is missing'),
        ([{**DATABASE, "port": 0}], 'key "port": 0 is not possible. Write a number from 1 to 65535'),
        ([{**DATABASE, "timeout": 0}], 'key "timeout": 0 is not possible'),
        ([{**DATABASE, "proxy": "http://10.0.0.5:80"}], "is not an address. Write HOST:PORT"),
        ([{**DATABASE, "address": "db.example.com"}], 'key "address": "db.example.com" is not an address of the host'),
        ([{**DATABASE, "protocol": "tpc"}], 'Did you mean "tcp"?'),
        ([{**DATABASE, "protocol": "udp", "certificate": "shop"}], 'key "certificate": "shop" is for TLS'),
        ([{**DATABASE, "certificate": "shpo"}], '"shpo" is the certificate of no site, and a site is where its names are proved. Did you mean "shop"?'),
        ([{**DATABASE, "certificate": "plain"}], '"plain" is the certificate of no site'),
        ([{**DATABASE, "access": "ofice"}], 'is not an access policy of nginx_access. Did you mean "office"?'),
        ([{**DATABASE, "access": "staff"}], 'key "access": "staff" asks for users, and of a stream nginx knows the address alone'),
        ([{"name": "a", "port": 1, "upstream": "pol"}], 'is not an upstream of nginx_upstreams. Did you mean "pool"?'),
        ([{"name": "a", "port": 1, "upstream": "by_path"}], 'has the balance "uri"'),
        ([{"name": "a", "port": 1, "upstream": "calls"}], "has the protocol grpc"),
        ([{"name": "a", "port": 1, "upstream": "over_tls", "protocol": "udp"}], "is spoken to over TLS"),
        ([{**DATABASE, "responses": 1}], 'key "responses": 1 is for datagrams'),
        ([{**DATABASE, "protocol": "udp", "send_proxy_protocol": True}], 'key "send_proxy_protocol": true is for connections'),
        ([DATABASE, {**DATABASE, "name": "DataBase", "port": 1}], '"DataBase" is "database" to nginx'),
        ([{**DATABASE, "address": "2001:db8::7"}, {**DATABASE, "name": "other", "address": "2001:0DB8:0::7"}], 'is where the stream "database" is'),
        ([DATABASE, {**DATABASE, "name": "other"}], 'entry "other", key "port": 5432 is where the stream "database" is'),
        ([{**DATABASE, "address": "192.0.2.7"}, {**DATABASE, "name": "other"}], 'is where the stream "database" is'),
    ],
)
def test_a_mistake_names_entry_key_value_and_cure(streams, message):
    with pytest.raises(PorticoError) as told:
        normalised(*streams)
    assert str(told.value).startswith("nginx_streams, entry ") and message in str(told.value)


def test_streams_share_a_port_where_they_differ_in_something_else():
    normalised(DATABASE, {**DATABASE, "name": "udp", "protocol": "udp"})
    normalised({**DATABASE, "address": "192.0.2.7"}, {**DATABASE, "name": "other", "address": "192.0.2.8"})


@pytest.mark.parametrize(("protocol", "port", "http3", "owner"), [("tcp", 80, False, "nginx_http_port"), ("tcp", 443, False, "nginx_https_port"), ("udp", 443, True, "nginx_http3")])
def test_no_stream_is_where_the_sites_are(protocol, port, http3, owner):
    settings = {"http_port": 80, "https_port": "443", "http3": http3}
    with pytest.raises(PorticoError, match=rf"{port} is where the sites are \({owner}\)"):
        refuse_ports_of_sites(normalised({**DATABASE, "port": port, "protocol": protocol}), {}, settings)
    refuse_ports_of_sites(normalised({**DATABASE, "port": port, "protocol": "udp"}), {}, {**settings, "http3": False})


def test_no_site_is_where_another_scopes_stream_is():
    with pytest.raises(PorticoError, match='^nginx_http3: the stream "quic" of the scope "other" is at port 443 on this host already'):
        refuse_ports_of_sites([], {"other": {"quic": ["udp", 443, None]}}, {"http_port": 80, "https_port": 443, "http3": True})


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ({"DATABASE": ["tcp", 1, None]}, 'key "name": "database" is a stream of the scope "other"'),
        ({"else": ["tcp", 5432, "192.0.2.7"]}, 'key "port": 5432 is where the stream "else" of the scope "other" is'),
        ({"else": ["udp", 5432, None]}, None),
    ],
)
def test_no_stream_is_where_another_scopes_is(there, message):
    if message is None:
        refuse_those_of_others(normalised(DATABASE), {"other": there})
        return
    with pytest.raises(PorticoError) as told:
        refuse_those_of_others(normalised(DATABASE), {"other": there})
    assert message in str(told.value)


def test_hostile_values_are_refused_by_name_or_are_one_token(tmp_path):
    keys = list(hostile.text_keys(entries.options("nginx_publish", "streams")))
    right = {"name": "database", "address": "192.0.2.7", "proxy": "10.0.0.5:5432", "upstream": "pool", "access": "office", "certificate": "shop"}
    assert set(keys) == right.keys()
    came_through = 0
    for key, value in hostile.values(20261129, COUNT, keys, right.__getitem__):
        stream = {**DATABASE, key: value} if key != "upstream" else {"name": "a", "port": 1, "upstream": value}
        try:
            got = directives(stream, tmp_path)
        except PorticoError as error:
            assert str(error).startswith("nginx_streams, entry ") and str(error).isprintable()
            continue
        usual = directives({**DATABASE, key: right[key]} if key != "upstream" else {"name": "a", "port": 1, "upstream": "pool"}, tmp_path)
        assert {block: [words[0] for words in inner] for block, inner in got.items()} == {block: [words[0] for words in inner] for block, inner in usual.items()}, (key, value)
        assert key in ("name", "address") or any(value.lower() in word for inner in got.values() for words in inner for word in words), (key, value)
        came_through += 1
    assert came_through
