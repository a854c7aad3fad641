"""Which of several servers is asked, over which connections, and how what is sent reaches it."""

from __future__ import annotations

import json
import os
import ssl
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from websocket import TEXT, WebSocket

lives = pytest.mark.skipif(not os.environ.get("PORTICO_LIVES"), reason="takes a minute: `make test-all` takes it")


@pytest.fixture
def met(told):
    """Which servers answer at a path, one after the other."""
    return lambda path, times: [told("pools", path)["server"] for _number in range(times)]


@pytest.fixture
def occupied(visitor, name, ask):
    """A stream from a server, which goes on until it is left."""
    opened = []

    def occupied(path):
        stream = visitor._opener.open(f"https://pools.{name}.example.test{path}events", timeout=10)
        opened.append(stream)
        assert stream.readline() == b"data: first\n"

    yield occupied
    ask("backends", "/streams/go")
    for stream in opened:
        stream.read()
        stream.close()


@pytest.fixture
def begun(connect, name):
    """A connection on which a post of two bytes has been begun, and one of them sent."""

    def begun(path):
        connection = connect("pools")
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: pools.{name}.example.test\r\nConnection: close\r\nContent-Length: 2\r\n\r\na".encode())
        return connection

    return begun


def rest(connection):
    return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


# ---- which server


def test_a_server_that_is_down_is_not_asked(met):
    assert set(met("/rested/", 8)) == {"9002"}


def test_a_server_that_has_failed_is_left_alone(visitor, name, reload):
    """After one failure, where nobody says after how many."""
    reload()
    statuses = Counter(visitor.post(f"https://pools.{name}.example.test/shy/", {"a": "b"}).status for _number in range(6))
    assert statuses == {200: 5, 502: 1}


def test_no_more_servers_are_asked_than_are_said(ask):
    """One, and half of the time it is the one that dies of it; with two all would be well."""
    assert Counter(ask("pools", "/once/").status for _number in range(6)) == {200: 3, 502: 3}


@pytest.mark.parametrize(("method", "statuses"), [("PUT", {200}), ("PATCH", {200, 502})])
def test_what_means_the_same_when_it_comes_twice_is_asked_again(visitor, name, method, statuses):
    url = f"https://backends.{name}.example.test/dying/"
    assert {visitor._ask(urllib.request.Request(url, data=b"a", method=method)).status for _number in range(6)} == statuses


def test_the_server_that_has_least_to_do_is_asked(met, occupied):
    occupied("/idle/")
    assert len(set(met("/idle/", 8))) == 1


def test_an_address_meets_the_same_server(met, through):
    assert len(set(met("/by-address/", 8))) == 1
    of = {number: {json.loads(through("pools", "/by-address/", X_Forwarded_For=f"192.0.{number}.1")[1])["server"] for _number in range(2)} for number in range(16)}
    assert all(len(servers) == 1 for servers in of.values()) and len(set.union(*of.values())) == 3, of


def test_by_chance_all_servers_are_met_and_not_by_turns(met):
    asked = met("/random/", 24)
    assert set(asked) == {"9001", "9002"} and any(one == next for one, next in zip(asked, asked[1:])), asked


def test_a_server_gets_no_more_connections_than_are_said(ask, occupied, eventually):
    assert ask("pools", "/full/").status == 200
    occupied("/full/")
    assert ask("pools", "/full/").status == 502
    ask("backends", "/streams/go")
    eventually(lambda: ask("pools", "/full/").status == 200)


# ---- over which connection


def test_connections_to_servers_are_kept_and_used_again(told, workers):
    """By each worker its own, where nobody says otherwise."""
    assert len({told("pools", "/")["connection"] for _number in range(12)}) <= len(workers()) < 12
    assert len({told("pools", "/anew/")["connection"] for _number in range(12)}) == 12


@pytest.mark.parametrize("path", ["/", "/anew/", "/proxied/", "/by-address/"])
def test_servers_are_asked_over_http_1_1(told, path):
    heard = told("pools", path)
    assert heard["version"] == "HTTP/1.1" and "connection" not in heard["headers"]


@pytest.mark.parametrize("path", ["/", "/anew/", "/proxied/"])
def test_a_websocket_is_led_on(address, name, path):
    ca = str(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "issuing-root.pem"))
    websocket = WebSocket(address, ca, f"pools.{name}.example.test", path)
    assert (websocket.status, websocket.is_accepted) == (101, True)
    for said in (b"one", b"two"):
        websocket.send(TEXT, said)
        assert websocket.receive() == (TEXT, said)
    websocket.close()


# ---- an app at a path


def test_an_app_below_a_path_is_asked(told):
    said = told("pools", "/below/a%20b?c=d")
    variables = said["variables"]
    assert (variables["PATH_INFO"], variables["QUERY_STRING"], variables["SERVER_PROTOCOL"]) == ("/below/a b", "c=d", "HTTP/1.1")
    assert variables["SERVER_SOFTWARE"].startswith("gunicorn") and said["scheme"] == "https"


@lives
def test_nginx_is_as_patient_as_the_app_may_be_slow(connect, name):
    """An app that may take 70 seconds, which is longer than nginx waits where nobody says anything."""
    with connect("pools", seconds=80) as connection:
        connection.sendall(f"GET /below/?takes=63 HTTP/1.0\r\nHost: pools.{name}.example.test\r\n\r\n".encode())
        assert rest(connection).startswith("HTTP/1.1 200 ")


# ---- how it is sent


def test_what_is_sent_is_passed_on_as_it_comes_where_that_is_said(begun, posted, eventually):
    before = posted()
    with begun("/passed-on/") as connection:
        eventually(lambda: posted() == before + 1)
        connection.sendall(b"b")
        assert '"read": 2' in rest(connection)


def test_and_when_all_of_it_is_there_where_it_is_not(begun, posted):
    before = posted()
    with begun("/proxied/") as connection:
        # Much that is asked later is answered first.
        assert {posted() for _number in range(20)} == {before}
        connection.sendall(b"b")
        assert '"read": 2' in rest(connection)
    assert posted() == before + 1


def test_so_is_what_a_backend_answers(connect, ask, name, eventually):
    """Its backend makes the second half when somebody has asked for it."""
    path = "/proxied/events"

    def asked():
        return json.loads(ask("main", "/backend/asked").text).get(path, 0)

    before = asked()
    with connect("pools") as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: pools.{name}.example.test\r\n\r\n".encode())
        eventually(lambda: asked() == before + 1)
        assert {asked() for _number in range(20)} == {before + 1}
        connection.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            connection.recv(1)
        connection.settimeout(10)
        ask("backends", "/streams/go")
        assert "data: first\n\ndata: second\n\n" in rest(connection)
