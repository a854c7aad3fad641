"""What somebody sends who wants to get past nginx, or to be somebody else: none of it works."""

from __future__ import annotations

import json
import re
import socket

import pytest


@pytest.fixture
def raw(connect, name):
    """Send bytes to a site over TLS, and return all that comes back, as text."""

    def raw(sent, site="main"):
        with connect(site) as connection:
            connection.sendall(sent.replace(b"HOST", f"{site}.{name}.example.test".encode()))
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode("latin-1")

    return raw


def statuses(answer):
    return [int(status) for status in re.findall(r"^HTTP/1\.[01] (\d{3})", answer, re.MULTILINE)]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: HOST/\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 4\r\nContent-Length: 0\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: +4\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST /backend/ HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: HOST\r\nContent-Length : 4\r\n\r\nabcd", 400),
        (b"GET / HTTP/1.1\r\nHost: HOST\r\nX: a\x00b\r\n\r\n", 400),
        (b"GET /a\x00b HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\nGET / HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: HOST\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: HOST\r\n\r\n", 414),
        (b"TRACE / HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", 405),
        (b"CONNECT inner.example.test:443 HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\nHost: HOST\r\n\r\n", 505),
        (b"GET /../../etc/passwd HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", 400),
        (b"GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n", 400),
    ],
)
def test_what_could_mean_two_things_is_refused_and_one_answer_comes_back(raw, sent, status):
    answer = raw(sent)
    assert statuses(answer) == [status], answer
    assert "root:" not in answer


@pytest.mark.parametrize("asked", ["nobody.example.test", "127.0.0.1", "nobody.example.test:443"])
def test_a_name_that_no_site_has_gets_nothing_whatever_the_handshake_said(raw, asked):
    assert raw(f"GET / HTTP/1.1\r\nHost: {asked}\r\n\r\n".encode()) == ""


def test_the_name_in_an_absolute_address_is_the_one_that_counts(raw, name):
    answer = raw(f"GET https://nobody.example.test/ HTTP/1.1\r\nHost: main.{name}.example.test\r\n\r\n".encode())
    assert answer == ""
    said = raw(f"GET https://main.{name}.example.test/backend/ HTTP/1.1\r\nHost: nobody.example.test\r\nConnection: close\r\n\r\n".encode())
    assert statuses(said) == [200] and json.loads(said.rpartition("\r\n\r\n")[2])["headers"]["host"] == f"main.{name}.example.test"


SPOOFED = {
    **dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP", "Client-IP", "Fastly-Client-IP"), "192.0.2.1"),
    **{"Forwarded": "for=192.0.2.1;proto=http", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example.test", "X-Forwarded-Port": "1", "X-Forwarded-Prefix": "/evil"},
    **{"X-Original-URL": "/admin", "X-Rewrite-URL": "/admin", "X-Host": "evil.example.test", "X-Forwarded-Server": "evil.example.test", "X-Forwarded-Scheme": "http", "X-Forwarded-Ssl": "off"},
}


def asked_with_lies(path, end):
    """A request of somebody who says much of itself, in lines that end so."""
    # With an underscore they would be the same to many an application.
    with_underscores = {header.replace("-", "_"): value for header, value in SPOOFED.items() if "-" in header}
    lies = {**SPOOFED, **with_underscores, "Script_Name": "/evil", "Path_Info": "/admin", "Remote_User": "root", "Remote_Addr": "192.0.2.1"}
    lines = [f"GET {path} HTTP/1.1", "Host: HOST", "Connection: close", *(f"{header}: {value}" for header, value in lies.items()), "", ""]
    return end.join(lines).encode()


# nginx takes a line break alone for the end of a line too (RFC 9112, section 2.2): it has to mean the same.
@pytest.mark.parametrize("end", ["\r\n", "\n"], ids=["crlf", "lf"])
def test_nothing_that_a_visitor_says_of_itself_reaches_a_backend(raw, end):
    said = raw(asked_with_lies("/backend/", end))
    assert statuses(said) == [200], said
    told = json.loads(said.rpartition("\r\n\r\n")[2])["headers"]
    assert told["x-forwarded-for"] == told["x-real-ip"] != "192.0.2.1" and told["x-forwarded-proto"] == "https"
    assert not {"192.0.2.1", "/admin", "/evil", "evil.example.test"} & set(told.values()) and not any("_" in header for header in told), told
    assert {header.lower() for header in SPOOFED} & told.keys() == {"x-forwarded-for", "x-real-ip", "x-forwarded-proto"}


@pytest.mark.parametrize("end", ["\r\n", "\n"], ids=["crlf", "lf"])
def test_an_app_hears_of_it_neither(raw, end, name):
    """gunicorn believes whoever connects to its socket what scheme it was asked by, and older ones below which path it is."""
    said = raw(asked_with_lies("/below/a", end), "pools")
    assert statuses(said) == [200], said
    told = json.loads(said.rpartition("\r\n\r\n")[2])
    variables = told["variables"]
    assert (told["scheme"], variables["SCRIPT_NAME"], variables["PATH_INFO"], variables["HTTP_HOST"]) == ("https", "", "/below/a", f"pools.{name}.example.test")
    assert variables["HTTP_X_FORWARDED_FOR"] == variables["HTTP_X_REAL_IP"] != "192.0.2.1" and variables["HTTP_X_FORWARDED_PROTO"] == "https"
    assert not {"192.0.2.1", "/admin", "/evil", "evil.example.test", "root"} & set(variables.values()), variables


@pytest.mark.parametrize("asked", [b"GET /\r\n", b"GET /index.html\r\n", b"GET /\n"])
def test_who_speaks_http_as_it_was_before_it_had_versions_gets_nothing(raw, address, asked):
    def plain(sent):
        with socket.create_connection((address, 80), timeout=10) as connection:
            connection.sendall(sent)
            return connection.recv(65536).decode("latin-1")

    for ask in (raw, plain):
        try:
            assert ask(asked) == ""
        except ConnectionResetError:
            pass  # nor is that an answer


def test_no_other_protocol_begins_inside_of_a_connection(raw):
    said = raw(b"GET /backend/ HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\nGET /backend/ HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n")
    assert said.count("HTTP/1.1 200 ") == 2 and '"upgrade"' not in said.lower()


@pytest.mark.parametrize("path", ["/a%0d%0aX-Injected:%20yes", "/%0d%0aX-Injected:%20yes/..", "/spa%0aX-Injected:%20yes"])
def test_no_header_is_put_into_a_redirect(address, name, path):
    with socket.create_connection((address, 80), timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: main.{name}.example.test\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode("latin-1")
    assert statuses(answer) == [301] and not re.search(r"^X-Injected", answer, re.MULTILINE | re.IGNORECASE), answer


@pytest.mark.parametrize("path", ["/closed/a", "//closed/a", "/./closed/a", "/%2e/closed/a", "/clos%65d/a", "/assets/../closed/a", "/assets/..%2fclosed/a", "/assets/%2e%2e/closed/a"])
def test_a_path_that_is_closed_is_closed_however_it_is_written(raw, path):
    def asked(path):
        return statuses(raw(f"GET {path} HTTP/1.1\r\nHost: HOST\r\nConnection: close\r\n\r\n".encode(), "files"))

    assert (asked(path), asked("/index.html")) == ([403], [200])


@pytest.mark.parametrize("version", ["tls1", "tls1_1"])
def test_old_tls_is_refused(host, name, version):
    """By nginx: a client that could not speak it would say so itself, and get no alert."""
    done = host.run("openssl s_client -connect 127.0.0.1:443 -servername %s -%s -cipher ALL:@SECLEVEL=0 </dev/null 2>&1", f"main.{name}.example.test", version)
    assert "alert protocol version" in done.stdout, done.stdout


def test_nobodys_name_gets_no_certificate(host):
    done = host.run("openssl s_client -connect 127.0.0.1:443 -servername nobody.example.test </dev/null 2>&1")
    assert "unrecognized name" in done.stdout and "BEGIN CERTIFICATE" not in done.stdout
    nameless = host.run("openssl s_client -connect 127.0.0.1:443 -noservername </dev/null 2>&1")
    assert "BEGIN CERTIFICATE" not in nameless.stdout
