"""Two who ask a site: somebody from outside, and somebody on the server itself."""

from __future__ import annotations

import json
import time

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
def inside(host, name):
    """Ask a site from the server itself, as curl does with more words; the status and the body."""

    def inside(site, path="/", *words):
        url = f"https://{site}.{name}.example.test{path}"
        done = host.run("curl --silent --insecure --max-time 15 --write-out '\\n%%{http_code}' " + "%s " * (len(words) + 1), *words, url)
        assert done.rc == 0, done
        body, _line, status = done.stdout.rpartition("\n")
        return int(status), body

    return inside

