"""Servers that have a certificate, and a clock that a test can set on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import BASE, DUE
from servers import Servers


LIBRARY = "/usr/local/lib/clock.so"


@pytest.fixture(scope="session")
def equipped(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Servers:
    """The servers with a clock that can be set on, and with names that lead to them."""
    # What the oldest has built runs on all of them.
    builder = min(servers, key=lambda server: int(server.run(". /etc/os-release; echo $VERSION_ID")))
    builder.run(
        "export DEBIAN_FRONTEND=noninteractive; apt-get -qq update && apt-get -qq install --no-install-recommends gcc libc6-dev >/dev/null 2>&1;"
        f"gcc -shared -fPIC -O1 -Wall -Werror -o {LIBRARY} -x c - <<'END'\n{Path(__file__).with_name('clock.c').read_text()}END\n"
    )
    built = tmp_path_factory.mktemp("clock") / "clock.so"
    subprocess.run(["docker", "cp", f"{builder.name}:{LIBRARY}", built], check=True, capture_output=True)
    for server in servers:
        subprocess.run(["docker", "cp", built, f"{server.name}:{LIBRARY}"], check=True, capture_output=True)
        server.run(f"echo {LIBRARY} >/etc/ld.so.preload")
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
