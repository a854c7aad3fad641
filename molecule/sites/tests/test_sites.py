"""What a site says, as its visitors see it."""

from __future__ import annotations

import json
import os
import ssl
import time
import urllib.request
from collections import Counter

import pytest

lives = pytest.mark.skipif(not os.environ.get("PORTICO_LIVES"), reason="takes a minute: `make test-all` takes it")
SAFE = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "SAMEORIGIN", "Referrer-Policy": "strict-origin-when-cross-origin"}
TWO_YEARS = "max-age=63072000"


def all_of(answer, header):
    return answer.headers.get_all(header) or []


# ---- what a location does


def test_files_and_what_is_served_where_there_are_none(ask):
    assert ask("main").text == "www/index.html\n"
    assert ask("main", "/nothing").status == 404
    for path in ("/spa/", "/spa/any/way"):
        assert ask("main", path).text == "www/spa/index.html\n"


def test_a_fallback_that_is_not_there_is_a_404(ask):
    assert ask("main", "/unbuilt/any").status == 404


@pytest.mark.parametrize("path", ["/media../media-secret.txt", "/media/../media-secret.txt", "/media/..%2fmedia-secret.txt", "/media-secret.txt", "/media//../../media-secret.txt"])
def test_nobody_leaves_the_folder_of_an_alias(ask, path):
    assert ask("main", "/media/a.txt").text == "media/a.txt\n"
    answer = ask("main", path)
    assert answer.status in (400, 404) and "secret" not in answer.text, answer


def test_a_fixed_answer_is_what_was_written(ask):
    robots = ask("main", "/robots.txt")
    assert (robots.status, robots.headers["Content-Type"], robots.text) == (200, "text/plain; charset=utf-8", "User-agent: *\nDisallow: /\n")
    assert ask("main", "/robots.txt.bak").status == 404
    closed = ask("main", "/closed.json")
    assert (closed.status, closed.headers["Content-Type"], closed.text) == (403, "application/json", '{"closed": "; }"}')


# ---- headers


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/nothing", 404), ("/spa", 301), ("/closed.json", 403), ("/backend/", 200), ("/backend/missing", 404), ("/nobody/", 502)])
def test_the_safe_headers_are_on_every_answer(ask, path, status):
    answer = ask("main", path)
    assert answer.status == status, answer
    assert {name: all_of(answer, name) for name in SAFE} == {name: [value] for name, value in SAFE.items()}
    assert all_of(answer, "Strict-Transport-Security") == [TWO_YEARS]


def test_they_are_on_the_redirects_of_other_names(visitor, name):
    answer = visitor.get(f"https://www.main.{name}.example.test/a?b=c")
    assert (answer.status, answer.headers["Location"]) == (301, f"https://main.{name}.example.test/a?b=c")
    assert all_of(answer, "Strict-Transport-Security") == [TWO_YEARS] and answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    plain = visitor.get(f"http://main.{name}.example.test/")
    assert plain.status == 301 and not all_of(plain, "Strict-Transport-Security")


def test_they_are_on_a_file_that_a_backend_sends_nginx_for(ask):
    answer = ask("main", "/backend/sends")
    assert answer.text == "media/a.txt\n" and ask("main", "/kept/a.txt").status == 404
    assert {name: all_of(answer, name) for name in SAFE} == {name: [value] for name, value in SAFE.items()}
    assert all_of(answer, "Strict-Transport-Security") == [TWO_YEARS]


def test_they_are_on_a_plain_site_that_adds_one_of_its_own(visitor, name):
    answer = visitor.get(f"http://plain.{name}.example.test/")
    assert {header: all_of(answer, header) for header in SAFE} == {header: [value] for header, value in SAFE.items()}
    assert all_of(answer, "X-Site") == ["yes"]


def test_what_a_backend_says_itself_is_not_said_twice(ask):
    answer = ask("main", "/backend/own")
    assert all_of(answer, "Strict-Transport-Security") == ["max-age=1"]
    assert all_of(answer, "X-Frame-Options") == ["DENY"]
    assert all_of(answer, "Content-Security-Policy") == ["default-src 'none'"]


@pytest.mark.parametrize(
    ("path", "policy", "trial", "permissions"),
    [
        ("/", "default-src 'self'", None, "camera=(), microphone=()"),
        ("/app/own", "default-src 'self'", None, "camera=(), microphone=()"),
        ("/missing", "default-src 'self'", None, "camera=(), microphone=()"),
        ("/own/", "default-src 'self'", None, "camera=(), microphone=()"),
        ("/files/", "sandbox", None, "camera=(self)"),
        ("/files/nothing", "sandbox", None, "camera=(self)"),
        ("/trial/", None, "default-src 'none'", "camera=(), microphone=()"),
    ],
)
def test_what_a_site_says_is_sent_once_and_counts(ask, path, policy, trial, permissions):
    answer = ask("strict", path)
    assert all_of(answer, "Content-Security-Policy") == ([policy] if policy else [])
    assert all_of(answer, "Content-Security-Policy-Report-Only") == ([trial] if trial else [])
    assert all_of(answer, "Permissions-Policy") == [permissions]
    assert all_of(answer, "X-Frame-Options") == ["DENY"]
    assert all_of(answer, "X-Content-Type-Options") == ["nosniff"]
    assert all_of(answer, "Referrer-Policy") == [] and all_of(answer, "X-Powered-By") == []
    assert all_of(answer, "Strict-Transport-Security") == ["max-age=31536000; includeSubDomains; preload"]
    # Said in the site's own text.
    assert all_of(answer, "X-Site") == ["yes"]
    assert all_of(answer, "X-Extra") == (["yes"] if path == "/own/" else [])


@pytest.mark.parametrize(("path", "policy"), [("/own", "default-src 'self'"), ("/open/own", "default-src 'none'")])
def test_what_a_backend_says_is_hidden_and_what_is_safe_is_not(ask, path, policy):
    answer = ask("hiding", path)
    assert all_of(answer, "X-Frame-Options") == (["SAMEORIGIN"])
    assert all_of(answer, "Strict-Transport-Security") == [TWO_YEARS]
    assert all_of(answer, "Content-Security-Policy") == [policy]


# ---- backends


def test_a_backend_is_told_who_asks_and_nothing_that_the_visitor_says_of_itself(told, name):
    lies = {"X_Forwarded_For": "6.6.6.6", "X_Forwarded_Proto": "http", "X_Forwarded_Host": "evil.test", "X_Real_IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
    heard = told("backends", "/", **lies)["headers"]
    assert heard["host"] == f"backends.{name}.example.test"
    assert heard["x-forwarded-proto"] == "https" and heard["x-forwarded-for"] == heard["x-real-ip"] != "6.6.6.6"
    assert "6.6.6.6" not in str(heard) and "evil" not in str(heard)


def test_servers_are_asked_by_their_weight(told):
    asked = Counter(told("backends", "/")["server"] for _number in range(16))
    assert asked == {"9001": 12, "9002": 4}


def test_a_backup_is_asked_where_no_other_answers(told):
    assert {told("backends", "/rescued/")["server"] for _number in range(4)} == {"9001"}


def test_the_same_path_meets_the_same_server(told):
    met = {path: {told("backends", f"/pinned/{path}")["server"] for _number in range(3)} for path in range(12)}
    assert all(len(servers) == 1 for servers in met.values()) and len(set.union(*met.values())) == 3, met


def test_a_read_is_asked_again_and_a_post_never(visitor, name, told):
    url = f"https://backends.{name}.example.test"

    def posts():
        return Counter(json.loads(visitor.get(f"{url}/upload/posts").text))

    assert {told("backends", "/dying/")["server"] for _number in range(6)} == {"9001"}
    before = posts()
    statuses = Counter(visitor.post(f"{url}/dying/", {"a": "b"}).status for _number in range(6))
    assert posts() - before == {"dying": statuses[502], "9001": statuses[200]}
    assert statuses[502] and statuses[200] and statuses.total() == 6


def test_a_unix_socket_answers_below_another_path(told):
    heard = told("backends", "/socket/a?b=c")
    assert (heard["server"], heard["path"]) == ("socket", "/below/a?b=c")


@pytest.mark.parametrize(("path", "asked"), [("/verified/a", "/below/a"), ("/inner/a", "/inner/a")])
def test_a_backend_over_tls_is_verified_and_asked_for_its_own_name(told, name, path, asked):
    heard = told("backends", path)
    assert (heard["server"], heard["path"], heard["headers"]["host"]) == ("9003", asked, "inner.example.test")
    assert heard["headers"]["x-forwarded-host"] == f"backends.{name}.example.test"


@pytest.mark.parametrize("path", ["/wrong-ca/", "/wrong-name/"])
def test_a_backend_that_cannot_be_verified_gets_no_request(ask, path):
    assert ask("backends", path).status == 502


def test_a_certificate_may_have_a_name_that_the_backend_is_not_asked_for_or_be_nobodys_business(told, name):
    for path, server in (("/named/", "9003"), ("/unverified/", "9007")):
        heard = told("backends", path)
        assert (heard["server"], heard["headers"]["host"]) == (server, f"backends.{name}.example.test")


@pytest.mark.parametrize("path", ["/verified/away", "/inner/away"])
def test_a_backend_of_another_name_leads_visitors_back_to_the_site(ask, path):
    assert ask("backends", path).headers["Location"] == f"{path}/from/here"


@pytest.mark.parametrize("path", ["/verified/elsewhere", "/inner/elsewhere"])
def test_also_where_it_leads_to_another_path(ask, path):
    assert ask("backends", path).headers["Location"] == "/login"


def test_events_arrive_while_the_stream_is_open(name, ask, address, visitor):
    opener = visitor._opener
    with opener.open(urllib.request.Request(f"https://backends.{name}.example.test/streams/events"), timeout=10) as stream:
        assert stream.readline() == b"data: first\n"
        assert ask("backends", "/streams/go").status == 200
        assert stream.read() == b"\ndata: second\n\n"


def test_a_body_may_be_as_large_as_is_said(visitor, name):
    url = f"https://backends.{name}.example.test"
    for path, size, status in (("/", 2_000_000, 413), ("/upload/", 2_000_000, 200), ("/upload/", 4_000_000, 413)):
        answer = visitor.post(url + path, {"a": "x" * size})
        assert answer.status == status and ("That is too large" in answer.text) == (status == 413)


def test_who_may_send_so_much_is_asked_and_told_as_ever(visitor, name):
    """The site itself takes a megabyte; so what asks about a larger request, and what tells why it fails, must not mind its size."""
    form = {"a": "x" * 2_000_000}
    answer = visitor.post(f"https://backends.{name}.example.test/upload-known/", form, Cookie="signed=in")
    assert answer.status == 200 and json.loads(answer.text)["headers"]["x-user"] == "anna", answer
    answer = visitor.post(f"https://backends.{name}.example.test/upload-nobody/", form)
    assert answer.status == 502 and "The application is not answering" in answer.text, answer


def test_a_part_of_what_a_backend_has_comes_through(ask):
    part = ask("backends", "/parts", Range="bytes=4-6")
    assert (part.status, part.text, part.headers["Content-Range"]) == (206, "456", "bytes 4-6/10")
    assert ask("backends", "/parts").text == "0123456789"


@lives
def test_a_stream_of_a_minute_arrives_as_it_is_sent(visitor, name):
    """The backend says itself that it is one, and no key does."""
    arrived = []
    with visitor._opener.open(urllib.request.Request(f"https://main.{name}.example.test/backend/minute"), timeout=10) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                arrived.append((int(line.removeprefix(b"data: ")), time.monotonic()))
    assert [number for number, _at in arrived] == list(range(61)) and arrived[-1][1] - arrived[0][1] > 55
    # Each before the next but one was sent.
    assert max(later - sooner for (_a, sooner), (_b, later) in zip(arrived, arrived[1:])) < 3


@lives
def test_a_gigabyte_is_uploaded(connect, name):
    site, piece = f"backends.{name}.example.test", bytes(1 << 20)
    with connect("backends", seconds=120) as connection:
        connection.sendall(f"POST /huge/ HTTP/1.1\r\nHost: {site}\r\nConnection: close\r\nContent-Length: {1 << 30}\r\n\r\n".encode())
        for _number in range(1 << 10):
            connection.sendall(piece)
        said = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert said.startswith("HTTP/1.1 200") and json.loads(said.rpartition("\r\n\r\n")[2])["read"] == 1 << 30


def test_a_backend_that_takes_too_long_is_given_up(ask):
    assert ask("backends", "/slow/never").status == 504


def test_unknown_names_get_neither_page_nor_certificate(visitor, name):
    with pytest.raises(ConnectionError):
        visitor.get(f"http://unknown.{name}.example.test/")
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        visitor.get(f"https://unknown.{name}.example.test/")


def test_nor_over_ipv6(host, name):
    """The server's own address: the network between it and its visitors has none."""
    ask = "curl --silent --insecure --max-time 10 --connect-to '::[::1]:' --write-out '%%{http_code}' "
    assert host.check_output(ask + "--output /dev/null %s", f"https://main.{name}.example.test/") == "200"
    assert host.run(ask + "%s", f"http://unknown.{name}.example.test/").stdout == "000"
    done = host.run("openssl s_client -connect '[::1]:443' -servername %s </dev/null 2>&1", f"unknown.{name}.example.test")
    assert "unrecognized name" in done.stdout and "BEGIN CERTIFICATE" not in done.stdout
