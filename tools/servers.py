"""The web servers of a scenario, all at once: what is done to them, and what they say and serve."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from acme import AcmeServer, Seen
from load import Load
from wire import Served, served

RENEW, RECONCILE = "certificates-renew.service", "certificates-reconcile.service"
Result = TypeVar("Result")

AS_A_MACHINE = "mount --make-rshared / && systemctl restart nginx"
"""Have mounts shared, as systemd does it on a machine and not in a container: a sandboxed nginx sees disks that come later."""


@dataclass(frozen=True)
class Done:
    """How a command or a unit ended, and what it said."""

    ok: bool
    text: str


class Server:
    """One of them. A container's name is the server's name in the inventory."""

    def __init__(self, name: str, acme: AcmeServer, ca: Path) -> None:
        self.name, self._acme, self._ca = name, acme, ca
        self.address = self.run("hostname --ip-address").split()[0]

    def __repr__(self) -> str:
        return self.name

    def site(self, label: str) -> str:
        """Return a name of this server, and of no other."""
        return f"{label}.{self.name}.example.test"

    def run(self, script: str) -> str:
        done = self.try_to(script)
        assert done.ok, f"{self.name}: {script}\n{done.text}"
        return done.text

    def try_to(self, script: str) -> Done:
        argv = ["docker", "exec", "--interactive", self.name, "bash", "-euo", "pipefail"]
        done = subprocess.run(argv, input=script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return Done(done.returncode == 0, done.stdout)

    def start(self, unit: str) -> Done:
        """Start a unit that does one thing, wait until it has, and return what it said."""
        mark = self.run("journalctl --no-pager --lines 0 --show-cursor").rpartition("cursor: ")[2].strip()
        # A test does it oftener than systemd allows for a unit that fails.
        started = self.try_to(f"systemctl reset-failed {unit} 2>/dev/null || true; systemctl start {unit}")
        said = self.run(f"journalctl --sync; journalctl --no-pager --output cat --after-cursor '{mark}' --unit {unit}")
        return Done(started.ok, said)

    def renew(self) -> Done:
        return self.start(RENEW)

    def reconcile(self) -> Done:
        return self.start(RECONCILE)

    @contextlib.contextmanager
    def later(self, days: float) -> Iterator[None]:
        """While it lasts, what starts on the server sees a date some days on; it needs clock.c of the scenario `renewal`."""
        self.run(f"echo {int(days * 86400)} >/run/clock")
        try:
            yield
        finally:
            self.run("rm /run/clock")

    def served(self, label: str, *flags: str) -> Served | None:
        """Return the certificate on the wire for a site; None where there is none."""
        return self.served_name(self.site(label), *flags)

    def served_name(self, name: str, *flags: str) -> Served | None:
        return served(self._acme, self.address, name, *flags)

    def serial(self, label: str) -> str:
        """Return the serial number on the wire, of a certificate that must be there."""
        found = self.served(label)
        assert found, f"{self.name} serves no certificate for {label}"
        return found.serial

    def load(self, *labels: str, scheme: str = "https") -> Load:
        """Visitors of some sites, who verify what they are served."""
        urls = [f"{scheme}://{self.site(label)}/" for label in labels]
        return Load(self.address, urls, ca=str(self._ca), clients=4)

    def nginx(self) -> str:
        """Return nginx's master, which no renewal may replace."""
        return self.run("cat /run/nginx.pid")

    def workers(self) -> list[str]:
        """Return nginx's workers, which every reload replaces."""
        return sorted(self.run("pgrep --parent $(cat /run/nginx.pid)").split())

    def status(self) -> list[dict[str, Any]]:
        """Return what the host itself says of its certificates."""
        return json.loads(self.try_to("portico-certificates status --json 2>/dev/null").text)

    def certbot(self) -> str:
        """Return the certbot in use."""
        return self.run("ls /opt/portico/certbot/bin/certbot 2>/dev/null || echo /usr/bin/certbot").strip()

    def age_of_certbot(self) -> tuple[int, ...]:
        return tuple(map(int, self.run(f"{self.certbot()} --version").split()[-1].split(".")))

    def lineages(self) -> list[str]:
        return self.run("ls /etc/letsencrypt/renewal").split()

    def wait_until(self, script: str, seconds: float = 60) -> None:
        """Wait until a script succeeds.

        :raises TimeoutError: when it does not.
        """
        deadline = time.monotonic() + seconds
        while not self.try_to(script).ok:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self.name}: not in {seconds} s: {script}")
            time.sleep(0.2)  # between two questions to a host that would not tell by itself


class Servers(list[Server]):
    """All of a scenario's web servers."""

    def __init__(self, names: Sequence[str], acme: AcmeServer, ca: Path, play: Callable[..., Any]) -> None:
        super().__init__(Server(name, acme, ca) for name in names)
        self.acme, self._play = acme, play

    def at_once(self, action: Callable[[Server], Result]) -> dict[Server, Result]:
        """Do something to all servers at the same time, and return what came of it on each."""
        with concurrent.futures.ThreadPoolExecutor(len(self)) as pool:
            return dict(zip(self, pool.map(action, self), strict=True))

    def deploy(self, *flags: str, only: Server | None = None, **variables: Any) -> Any:
        """Run the scenario's play with some variables, on all servers or on one."""
        limit = ["--limit", only.name] if only else []
        return self._play("deploy.yml", *limit, "--extra-vars", json.dumps(variables), *flags)

    def name_sites(self, *labels: str) -> None:
        """Let the names of sites lead to their servers, for the CA and for each server itself."""
        for server in self:
            names = [server.site(label) for label in labels]
            for name in names:
                self.acme.lead(name, server.address)
            # Without -i: the engine has mounted this very file.
            server.run(f"grep -qxF '127.0.0.1 {' '.join(names)}' /etc/hosts || echo '127.0.0.1 {' '.join(names)}' >>/etc/hosts")

    @contextlib.contextmanager
    def later(self, days: float) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for server in self:
                stack.enter_context(server.later(days))
            yield

    @contextlib.contextmanager
    def load(self, *labels: str, scheme: str = "https") -> Iterator[dict[Server, Load]]:
        """Visitors of all servers. Nothing may be lost to them."""
        with contextlib.ExitStack() as stack:
            loads = {server: stack.enter_context(server.load(*labels, scheme=scheme)) for server in self}
            yield loads
        lost = {server: load.report for server, load in loads.items() if load.report.lost}
        assert not lost, "\n".join(f"{server}: {report}" for server, report in lost.items())

    def orders(self, seen: Seen) -> dict[Server, int]:
        """Return how many orders each server has made."""
        return {server: len(seen.of("newOrder", client=server.address)) for server in self}


def site(label: str, **keys: Any) -> dict[str, Any]:
    """Return a site of nginx_sites that each server has under a name of its own."""
    return {"name": label, "server_names": [named(label)], "root": "/srv/page", **keys}


def named(label: str) -> str:
    """Return Server.site() as the play is to write it."""
    return f"{label}.{{{{ inventory_hostname }}}}.example.test"
