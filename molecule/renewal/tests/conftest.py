"""Servers that have a certificate, and a clock that a test can set on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from faults import BASE, DUE
from servers import Servers


@pytest.fixture(scope="session")
def equipped(servers: Servers) -> Servers:
    """The servers with libfaketime, and with names that lead to them."""
    install = "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq install --no-install-recommends libfaketime >/dev/null 2>&1"
    servers.at_once(lambda server: server.run(install))
    servers.name_sites("base", "www.base")
    return servers


@pytest.fixture(scope="module")
def base(equipped: Servers) -> Servers:
    """The servers with one site and its certificate, whatever the module before has left."""
    run = equipped.deploy(nginx_sites=[BASE])
    assert run.ok, run.output
    return equipped


@pytest.fixture
def renews(base: Servers, each: Callable[..., None]) -> Callable[[], None]:
    """Have the next renewal, when nothing is in its way, bring each server a new certificate, with nothing lost."""

    def renews() -> None:
        before = base.at_once(lambda server: (server.serial("base"), server.nginx()))
        with base.later(DUE), base.load("base"):
            done = base.at_once(lambda server: server.renew())

        def judge(server: Any) -> None:
            assert done[server].ok, done[server].text
            serial, master = before[server]
            assert server.serial("base") != serial
            assert server.nginx() == master

        each(judge)

    return renews
