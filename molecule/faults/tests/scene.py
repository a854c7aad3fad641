"""A server with a few small sites in two versions, so that a test can see which of them is served, and whether wholly."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from load import Load
from visitor import Answer

FAULT = Path(__file__).parents[1] / "portico_fault.py"
PYTHON = "/usr/lib/python3/dist-packages"
PLACE = "/run/fault"
PACKAGED = "/root/packaged.tar"

PAGES, MOVED, SECURE = "http://pages.example.test/", "http://moved.example.test/", "https://secure.example.test/"
URLS = [PAGES, MOVED, SECURE]

# Everything that publishing leaves outside a generation. Which generations there are is the engine's own business.
TRACES = r"""
find /var/lib/portico /etc/nginx /etc/systemd/system /run/portico* /tmp -not -path '/tmp/systemd-private-*' -not -path '/tmp/ansible_*' 2>/dev/null \
  | sed -E 's,(/generations/[0-9]+).*,/generations/N,' | LC_ALL=C sort -u
dpkg-divert --list '/etc/nginx/*'
"""


def sites(version: str) -> list[dict[str, Any]]:
    """The sites of one version: what each answers says the version's name."""
    return [
        {"name": "pages", "server_names": ["pages.example.test"], "tls": False, "root": f"/srv/{version}"},
        {"name": "moved", "server_names": ["moved.example.test"], "tls": False, "redirect": f"https://{version}.example.test/"},
        {"name": "secure", "server_names": ["secure.example.test"], "root": f"/srv/{version}"},
    ]


def version_of(reply: Answer) -> str:
    """Say which version an answer is of. The distribution's own page counts as what was there before."""
    if reply.status in (301, 302):
        return reply.headers["Location"].removeprefix("https://").split(".")[0]
    if b"Welcome to nginx" in reply.body:
        return "packaged"
    return reply.body.decode().strip() if reply.status == 200 else f"status {reply.status}"


class Server:
    """One server under test, and what is done to it."""

    def __init__(self, host: Any, name: str, turn: slice, play: Callable[..., Any]) -> None:
        self.host, self.name, self.turn, self._play = host, name, turn, play

    @functools.cached_property
    def address(self) -> str:
        return self.host.check_output("hostname --ip-address").split()[0]

    def publish(self, version: str, *flags: str, more: tuple[dict[str, Any], ...] = (), **variables: Any) -> Any:
        """Run the play: the sites of a version, and more of them."""
        given = {"nginx_sites": [*sites(version), *more], **variables}
        return self.play_with(given, *flags)

    def publish_twice(self, version: str) -> tuple[Any, list[str]]:
        """Publish a version, and then once more: what came of it, and what the second time changed.

        It is one run of ansible-playbook, for the sake of the hundreds of kills after which it is asked.
        """
        run = self.play_with({"nginx_sites": sites(version)}, playbook="publish_twice.yml")
        return run, re.findall(r"^changed: .*", run.output.partition("PLAY [Publish them again]")[2], re.MULTILINE)

    def play_with(self, variables: dict[str, Any], *flags: str, playbook: str = "publish.yml") -> Any:
        return self._play(playbook, "--limit", self.name, "--extra-vars", json.dumps(variables), *flags)

    def load(self, *urls: str) -> Load:
        return Load(self.address, urls or URLS, label=version_of)

    def versions(self, *urls: str) -> set[str]:
        """Which versions a visitor sees: more than one would be half of each."""
        with Load(self.address, urls or URLS, label=version_of, clients=4, pause=0.005) as load:
            pass
        assert not load.report.lost, load.report
        return set(load.report.labels)

    def live(self) -> str:
        return self.host.check_output("readlink /var/lib/portico/nginx/live")

    def traces(self) -> set[str]:
        return set(self.host.check_output(TRACES).splitlines())

    def changed_since(self, before: set[str]) -> list[str]:
        """Return what came (+) and went (-) of the traces, of a folder only its own name."""
        now = self.traces()
        signed = {path: "+" for path in now - before} | {path: "-" for path in before - now}
        return sorted(sign + path for path, sign in signed.items() if path.rpartition("/")[0] not in signed)

    @contextlib.contextmanager
    def held_port(self, port: int) -> Iterator[None]:
        """While it lasts, another process has the port: nginx -t and a reload both succeed, and nginx goes on as before."""
        self.host.check_output(f"systemd-run --quiet --unit holder --service-type=exec python3 -m http.server {port}")
        try:
            self.host.check_output(f"timeout 10 sh -c 'until curl --silent --output /dev/null http://127.0.0.1:{port}/; do :; done'")
            yield
        finally:
            self.host.check_output("systemctl stop holder")

    def restart(self) -> None:
        """As the next boot or the next upgrade of nginx would. Tests do it oftener than systemd's limit allows."""
        self.host.check_output("nginx -t -q && systemctl reset-failed nginx && systemctl restart nginx")

    def keep_packaged(self) -> None:
        """Install nginx as a person would, serve its packaged page, and remember what that is made of."""
        self.host.check_output(
            "DEBIAN_FRONTEND=noninteractive apt-get -qq update && DEBIAN_FRONTEND=noninteractive"
            " apt-get -qq install --no-install-recommends nginx openssl"
            f" && tar -cf {PACKAGED} /etc/nginx /etc/systemd/system /var/lib/dpkg/diversions"
        )

    def unpublish(self) -> None:
        """Go back to what keep_packaged() remembers."""
        self.host.check_output(
            "systemctl stop nginx && rm -rf /var/lib/portico /etc/nginx /etc/systemd/system"
            f" && tar -xf {PACKAGED} -C / && systemctl daemon-reload && systemctl start nginx"
        )

    def reboot(self) -> None:
        subprocess.run(["docker", "restart", self.name], check=True, capture_output=True)
        # It does not wait before systemd listens; then it returns when the boot is over.
        self.host.run("timeout 60 sh -c 'until systemctl is-system-running --wait | grep -qE \"running|degraded\"; do sleep 0.2; done'")
        self.host.check_output("systemctl is-active nginx")
        vars(self).pop("address", None)  # the engine may have given another

    @contextlib.contextmanager
    def faults(self, kill_before: int | None = None) -> Iterator[None]:
        """While it lasts, the steps of what runs on the host are counted, and one of them is its last."""
        number = "true" if kill_before is None else f"echo {kill_before} >{PLACE}/kill-before"
        self.host.check_output(f"mkdir {PLACE} && {number}")
        try:
            yield
        finally:
            self._steps = self.host.check_output(f"mv {PLACE} {PLACE}-over && cat {PLACE}-over/steps; rm -r {PLACE}-over").splitlines()

    @property
    def steps(self) -> list[str]:
        """What was done while faults() lasted."""
        return self._steps

    def arm(self) -> None:
        """Bring what the tests need: the instrument that kills, and what the sites show."""
        subprocess.run(["docker", "cp", FAULT, f"{self.name}:{PYTHON}/"], check=True, capture_output=True)
        self.host.check_output(f"echo import portico_fault >{PYTHON}/portico_fault.pth")
        for version in ("old", "new", "other"):
            self.host.check_output(f"mkdir -p /srv/{version} && echo {version} >/srv/{version}/index.html")
