"""Two who ask a site: somebody from outside, and somebody on the server itself."""

from __future__ import annotations

import json
import re
import socket
import ssl
import time
from collections import Counter

import pytest


@pytest.fixture
def ask(visitor, name):
    """Ask a site of this server for a path."""

    def ask(site, path="/", **headers):
        return visitor.get(f"https://{site}.{name}.example.test{path}", **headers)

    return ask


@pytest.fixture
def eventually():
    """Ask until something has happened, and no longer than some seconds."""

    def eventually(happens, seconds=20):
        deadline = time.monotonic() + seconds
        while not happens():
            assert time.monotonic() < deadline

    return eventually


@pytest.fixture
def told(ask):
    """What a backend was told when a site was asked for a path."""

    def told(site, path, **headers):
        answer = ask(site, path, **headers)
        assert answer.status == 200, answer
        return json.loads(answer.text)

    return told


@pytest.fixture
def posted(ask):
    """How often something was posted to the first backend."""
    return lambda: json.loads(ask("main", "/backend/posts").text).get("9001", 0)


@pytest.fixture
def connect(address, name):
    """Open a connection to a site over TLS, for who speaks HTTP by hand."""

    def connect(site, seconds=10):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context.wrap_socket(socket.create_connection((address, 443), timeout=seconds), server_hostname=f"{site}.{name}.example.test")

    return connect


@pytest.fixture
def workers(host):
    """The workers of nginx that take visitors: those that are told to leave say so in their title."""
    return lambda: set(host.run("pgrep --full 'nginx: worker process$'").stdout.split())


@pytest.fixture
def reload(host, workers, eventually):
    """Let nginx read its configuration anew, and wait until no worker of before takes visitors."""

    def reload():
        before = workers()
        host.check_output("systemctl reload nginx")
        eventually(lambda: workers() and not before & workers())

    return reload


@pytest.fixture
def through(inside):
    """Ask through the proxy that is trusted, which says something of its visitor."""

    def through(site, path, *words, **said):
        return inside(site, path, "--interface", "127.0.0.3", *words, *(word for name, value in said.items() for word in ("--header", f"{name.replace('_', '-')}: {value}")))

    return through


@pytest.fixture
def at_once(host, name):
    """Ask a site from the server itself many times at once; the statuses, and all Retry-After that came with them.

    nginx ends a connection after a thousand requests. Where those are HTTP/2, Debian 12's curl has asked for more by
    then, and on a busy machine gives up some of it (rc 55, and once rc 16). So who asks that often says --http1.1.
    """

    def at_once(site, path, times, *words):
        url = f"https://{site}.{name}.example.test{path}?[1-{times}]"
        said = host.check_output("curl --silent --insecure --parallel --parallel-max 100 --max-time 60 --output /dev/null --write-out '%%{http_code}/%%header{retry-after}\\n'" + " %s" * (len(words) + 1), *words, url)
        answers = re.findall(r"^(\d+)/(.*)$", said, re.MULTILINE)
        assert len(answers) == times, said
        return Counter(int(status) for status, _wait in answers), {wait for _status, wait in answers if wait}

    return at_once


@pytest.fixture
def inside(host, name):
    """Ask a site from the server itself, as curl does with more words; the status and the body."""

    def inside(site, path="/", *words):
        url = f"https://{site}.{name}.example.test{path}"
        done = host.run("curl --silent --insecure --max-time 15 --write-out '\\n%%{http_code}' " + "%s " * (len(words) + 1), *words, url)
        assert done.rc == 0, done
        body, _line, status = done.stdout.rpartition("\n")
        return int(status), body

    return inside

