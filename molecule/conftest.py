"""What the tests of all scenarios have at hand, and what they print when one fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from acme import AcmeServer
from plays import playbook
from servers import Server, Servers
from visitor import Visitor

SHARED = Path(__file__).parent / "shared"


def containers(group: str) -> list[str]:
    """The containers of one of the scenario's groups."""
    inventory = yaml.safe_load(Path(os.environ["MOLECULE_INVENTORY_FILE"]).read_text())
    return sorted(inventory[group]["hosts"])


def pytest_configure(config: pytest.Config) -> None:
    """Let testinfra see the servers as root does, whoever deploys to them.

    Where pytest-xdist runs all tests in each of several processes (--dist each), each of these has servers of its own.
    """
    servers = containers("web")
    worker = getattr(config, "workerinput", None)
    if worker:
        servers = servers[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]
    config.option.hosts = ",".join(f"docker://{name}" for name in servers)


@pytest.fixture(scope="module")
def name(host: Any) -> str:
    """The server's name in the inventory, which is its container's."""
    return host.backend.name


@pytest.fixture(scope="module")
def turn(name: str) -> slice:
    """This server's share of what the servers do by turns, of a list."""
    servers = containers("web")
    return slice(servers.index(name), None, len(servers))


@pytest.fixture(scope="module")
def address(name: str) -> str:
    (container,) = json.loads(
        subprocess.run(["docker", "inspect", name], check=True, capture_output=True, text=True).stdout
    )
    (network,) = container["NetworkSettings"]["Networks"].values()
    return network["IPAddress"]


@pytest.fixture
def visitor(address: str) -> Visitor:
    """Somebody who trusts the ACME server's root and no other, with no cookies yet."""
    return Visitor(address, ca=str(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "issuing-root.pem")))


@pytest.fixture
def crash(host: Any) -> Callable[..., None]:
    """Kill all processes of a unit, or its main process alone, and wait until it runs again."""

    def shown(unit: str) -> tuple[str, str]:
        # One question for both: between two of them a unit dies, or comes back.
        said = dict(line.split("=", 1) for line in host.check_output("systemctl show --property ActiveState,MainPID %s", unit).splitlines())
        return said["ActiveState"], said["MainPID"]

    def crash(unit: str, whom: str = "all") -> None:
        state, before = shown(unit)
        assert state == "active" and before != "0"
        host.check_output("systemctl kill --signal KILL --kill-whom %s %s", whom, unit)
        deadline = time.monotonic() + 10
        while (now := shown(unit))[0] != "active" or now[1] in ("0", before):
            assert time.monotonic() < deadline, now
            time.sleep(0.1)  # between two questions to a host that would not tell by itself

    return crash


@pytest.fixture(scope="session")
def acme() -> AcmeServer:
    return AcmeServer(containers("acme")[0])


class PlayRun:
    """One run of ansible-playbook: `ok`, `output`, and of each host what it `changed` and whether it has `failed`."""

    def __init__(self, *arguments: str) -> None:
        status, self.output = playbook("--inventory", os.environ["MOLECULE_INVENTORY_FILE"], *arguments)
        self.ok = status == 0
        recap = re.findall(r"^(\S+)\s+: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", self.output, re.M)
        self.changed = {host: int(changed) for host, changed, _unreachable, _failed in recap}
        self.failed = {host for host, _changed, unreachable, failed in recap if int(unreachable) or int(failed)}

    def lines_of(self, host: str) -> str:
        """What the play said of one host's tasks."""
        return "\n".join(line for line in self.output.splitlines() if f"[{host}]" in line.partition(" => ")[0])


@pytest.fixture(scope="session")
def play() -> Callable[..., PlayRun]:
    """Run a playbook of the scenario against its hosts: play("converge.yml", "--check")."""

    def run(playbook: str, *arguments: str) -> PlayRun:
        return PlayRun(*arguments, str(Path(os.environ["MOLECULE_SCENARIO_DIRECTORY"], playbook)))

    return run


@pytest.fixture(scope="session")
def servers(acme: AcmeServer, play: Callable[..., PlayRun]) -> Servers:
    """All web servers, for tests that have one run do the same to all of them. Each has a page to show."""
    ca = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "issuing-root.pem")
    servers = Servers(containers("web"), acme, ca, play)
    servers.at_once(lambda server: server.run("mkdir -p /srv/page && echo page >/srv/page/index.html"))
    return servers


@pytest.fixture
def each(servers: Servers, subtests: pytest.Subtests) -> Callable[[Callable[[Server], None]], None]:
    """Judge every server, and go on with the next when one fails."""

    def each(judge: Callable[[Server], None]) -> None:
        for server in servers:
            with subtests.test(server=server.name):
                judge(server)

    return each


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the last answer, the journal and the logs to the report of a failed test."""
    report = yield
    if report.failed:
        fixtures = getattr(item, "funcargs", {})
        if "visitor" in fixtures and fixtures["visitor"].last:
            report.sections.append(("the last answer", str(fixtures["visitor"].last)))
        if "host" in fixtures:
            report.sections.append(("the server", _server_report(fixtures["host"].backend.name)))
    return report


def _server_report(container: str) -> str:
    with (SHARED / "report.sh").open() as script:
        command = ["docker", "exec", "--interactive", container, "bash"]
        return subprocess.run(
            command, stdin=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
        ).stdout
