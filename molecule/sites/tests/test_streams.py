"""Connections and datagrams that are passed on without being looked into."""

from __future__ import annotations

import json
import socket

import pytest

DATAGRAM = """
import socket, sys
asked = b"\\1\\2\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + b"".join(bytes([len(label)]) + label.encode() for label in "moving.example.test".split(".")) + b"\\0\\0\\1\\0\\1"
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(10)
    client.sendto(asked, ("127.0.0.1", 7053))
    print(socket.inet_ntoa(client.recv(512)[-4:]))
"""

TALK = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
    client.settimeout(10)
    for number in range(8):
        client.sendto(b"x", ("127.0.0.1", 7054))
        print(client.recv(512).decode())
"""


@pytest.fixture
def inside_of(host):
    """Ask a port of the server from the server itself, as curl does with more words."""

    def inside_of(port, *words):
        return host.run("curl --silent --max-time 15 " + "%s " * (len(words) + 1), *words, f"http://127.0.0.1:{port}/")

    return inside_of


def test_connections_are_passed_on(visitor, name):
    answer = visitor.get(f"http://any.{name}.example.test:7001/way")
    assert answer.status == 200 and json.loads(answer.text)["server"] == "9001"
    # As they come: who asks is told by nobody.
    assert "x-forwarded-for" not in json.loads(answer.text)["headers"] and answer.headers["X-Frame-Options"] is None


def test_an_address_that_is_not_let_in_gets_nothing(address, inside_of):
    with socket.create_connection((address, 7002), timeout=10) as connection:
        assert connection.recv(1) == b""
    assert {json.loads(inside_of(7002).stdout)["server"] for _number in range(8)} == {"9001", "9002"}


def test_who_does_not_reach_a_streams_address_reaches_nobody(address, inside_of):
    assert json.loads(inside_of(7008).stdout)["server"] == "9001"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address, 7008), timeout=10)


def test_tls_ends_with_a_sites_certificate_or_begins(visitor, name, inside_of):
    answer = visitor.get(f"https://main.{name}.example.test:7003/")
    assert answer.status == 200 and json.loads(answer.text)["server"] == "9001"
    assert json.loads(inside_of(7004).stdout)["server"] == "9003"


def test_a_server_is_told_who_connects(host):
    said = host.check_output("python3 -c %s", "import socket; print(socket.create_connection(('127.0.0.1', 7005), 10).recv(200).decode())").split()
    assert said[:4] == ["PROXY", "TCP4", "127.0.0.1", "127.0.0.1"] and said[5] == "7005"


def test_datagrams_are_passed_on(host):
    assert host.check_output("python3 -c %s", DATAGRAM) == "127.0.0.1"


def test_who_talks_by_datagrams_talks_to_one(host):
    said = host.check_output("python3 -c %s", TALK).split()
    assert len(said) == 8 and len(set(said)) == 1, said


def test_somebody_has_as_many_connections_as_are_said(address):
    with socket.create_connection((address, 7006), timeout=10) as first:
        first.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200" in first.recv(65536)
        with socket.create_connection((address, 7006), timeout=10) as second:
            assert second.recv(1) == b""


def test_a_connection_on_which_nobody_says_anything_ends_after_the_timeout_that_is_said(address):
    """It would be ten minutes, and the one who asks does not wait for so long."""
    with socket.create_connection((address, 7007), timeout=10) as connection:
        assert connection.recv(1) == b""


def test_a_connection_lives_through_a_reload_and_is_logged(host, address, eventually, reload):
    before = host.check_output("wc --lines </var/log/nginx/streams.log")
    with socket.create_connection((address, 7001), timeout=10) as connection:
        connection.sendall(b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"200" in connection.recv(65536)
        reload()
        connection.sendall(b"GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"/second" in b"".join(iter(lambda: connection.recv(65536), b""))
    eventually(lambda: int(host.check_output("wc --lines </var/log/nginx/streams.log")) > int(before))
    assert host.check_output("stat --format '%a %U' /var/log/nginx/streams.log") == "640 www-data"


def test_a_stream_at_a_port_of_the_sites_is_told_before_anything(play, name, host):
    live = host.check_output("readlink /var/lib/portico/nginx/live")
    streams = {"nginx_streams": [{"name": "web", "port": 443, "proxy": "127.0.0.1:9001"}]}
    run = play("converge.yml", "--limit", name, "--extra-vars", json.dumps(streams))
    assert not run.ok and 'nginx_streams, entry "web", key "port": 443 is where the sites are (nginx_https_port)' in run.output, run.output
    assert host.check_output("readlink /var/lib/portico/nginx/live") == live


def test_a_stream_that_is_taken_out_is_gone_and_comes_back(play, name, host, address):
    """The last one takes the block along in which they are."""
    without = ("converge.yml", "--limit", name, "--extra-vars", json.dumps({"nginx_streams": []}))
    run = play(*without)
    assert run.ok, run.output
    try:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, 7001), timeout=10)
        assert host.run("grep '^stream' /etc/nginx/nginx.conf").rc == 1
        assert play(*without).changed == {name: 0}
    finally:
        assert play("converge.yml", "--limit", name).ok
    with socket.create_connection((address, 7001), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200" in connection.recv(65536)
