"""The server of these tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scene import PACKAGED, Server


@pytest.fixture(scope="module")
def server(host: Any, name: str, turn: slice, play: Callable[..., Any]) -> Server:
    """A server in whatever state the test before left it."""
    server = Server(host, name, turn, play)
    server.arm()
    if not host.file(PACKAGED).exists:
        server.keep_packaged()
    return server


@pytest.fixture
def old(server: Server) -> Server:
    """The server, with the old version published and served."""
    run = server.publish("old")
    assert run.ok, run.output
    assert server.versions() == {"old"}
    return server


@pytest.fixture
def packaged(server: Server) -> Server:
    """The server as its packages leave it, with nginx installed and nothing ever published."""
    server.unpublish()
    assert server.versions("http://pages.example.test/") == {"packaged"}
    return server
