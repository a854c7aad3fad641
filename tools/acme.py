"""The ACME server of the tests from outside: what it was asked, what it is to do wrong, where names lead.

acme = AcmeServer("portico-default-acme")
with acme.fault("newOrder", "problem", type="rateLimited", retry_after=3600), acme.watch() as seen:
    ...
assert len(seen.of("newOrder", client=address)) == 1
"""

from __future__ import annotations

import contextlib
import itertools
import json
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

FOLDER = "/var/lib/acme"
_names = itertools.count(1)


class Seen:
    """The requests that came through the proxy since it began to be looked at, up to now or until it was over."""

    def __init__(self, acme: AcmeServer, begin: int) -> None:
        self._acme, self._begin = acme, begin
        self._kept: list[dict[str, Any]] | None = None

    def requests(self) -> list[dict[str, Any]]:
        return self._acme.requests()[self._begin :] if self._kept is None else self._kept

    def of(self, *resources: str, client: str | None = None) -> list[dict[str, Any]]:
        """Return the requests for some resources, or for all; of one client, by its address, or of all."""
        return [each for each in self.requests() if (not resources or each["resource"] in resources) and client in (None, each["client"])]

    def wait_for(self, resource: str, clients: Iterable[str], seconds: float = 60) -> None:
        """Wait until each of the clients has asked for something.

        :raises TimeoutError: when one has not.
        """
        deadline = time.monotonic() + seconds
        waiting = set(clients)
        while waiting := waiting - {each["client"] for each in self.of(resource)}:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{', '.join(sorted(waiting))} did not ask for {resource} in {seconds} s")
            time.sleep(0.1)  # between two looks at a file in a container, which tells nobody that it grows

    def end(self) -> None:
        self._kept = self.requests()


class AcmeServer:
    """A container of the image portico-acme."""

    def __init__(self, container: str) -> None:
        self.container = container
        self._rules: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def run(self, *command: str, stdin: str = "") -> str:
        """Run a command in the container, and return what it printed."""
        argv = ["docker", "exec", "--interactive", self.container, *command]
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    # What it was asked

    def requests(self) -> list[dict[str, Any]]:
        """Return all requests that came through the proxy, as acme-proxy describes them."""
        text = self.run("sh", "-c", f"cat {FOLDER}/requests.jsonl 2>/dev/null || true")
        # The last line may just be being written.
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    @contextlib.contextmanager
    def watch(self) -> Iterator[Seen]:
        seen = Seen(self, len(self.requests()))
        try:
            yield seen
        finally:
            seen.end()

    # What it is to do wrong

    @contextlib.contextmanager
    def fault(self, resource: str | list[str], do: str, **rule: Any) -> Iterator[None]:
        """While it lasts, the proxy follows one rule more. Its keys are described in acme-proxy."""
        added = {"name": f"rule {next(_names)} of {time.time()}", "resource": resource, "do": do, **rule}
        self._change([added], [])
        try:
            yield
        finally:
            self._change([], [added])

    def _change(self, add: list[dict[str, Any]], remove: list[dict[str, Any]]) -> None:
        with self._lock:
            self._rules = [rule for rule in self._rules if rule not in remove] + add
            # In one step: the proxy may read it at any time.
            self.run("sh", "-c", f"cat >{FOLDER}/rules.new && mv {FOLDER}/rules.new {FOLDER}/rules.json", stdin=json.dumps(self._rules))

    # Where names lead

    def lead(self, name: str, *addresses: str) -> None:
        """Let a name lead to some addresses, and no others; without any it does not exist."""
        self._tell("clear-a", {"host": name})
        if addresses:
            self._tell("add-a", {"host": name, "addresses": addresses})

    def _tell(self, what: str, record: dict[str, Any]) -> None:
        self.run("curl", "--silent", "--show-error", "--fail", "--data", json.dumps(record), f"http://localhost:8055/{what}")

    @property
    def address(self) -> str:
        return self.run("hostname", "--ip-address").split()[0]
