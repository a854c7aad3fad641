# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where strangers' code is run while an environment is built: as the app's user, confined, and for a bounded time."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from ansible_collections.portico.web.plugins.module_utils import files
from ansible_collections.portico.web.plugins.module_utils.steps import Steps

SECONDS = 1800
"""What one step of a build has."""

_PRIVATE = "/run"
"""Memory, on every host with systemd: what is secret here never comes to a disk."""

# What the host's administrator says of proxies, certificates and indexes holds for builds, too.
_PASSED_ON = re.compile(r"PIP_\w+|UV_\w+|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(?i:https?|all|no)_(?i:proxy)")

_CONFINEMENT = (
    "NoNewPrivileges=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHome=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "ProtectSystem=strict",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "CapabilityBoundingSet=",
    "UMask=0027",
    # A build must not take from visitors what they need.
    "CPUWeight=20",
    "Nice=10",
)


class Builder:
    """Runs the steps of one build. What it needs is there while C(with) lasts, and gone afterwards, whatever happens."""

    def __init__(self, steps: Steps, user: str, writable: Sequence[str], environment: Mapping[str, str]) -> None:
        """Begin.

        :param writable: the folders that a build may write to, which are the user's.
        :param environment: variables of the build, secrets among them.
        """
        self.steps, self.user, self.writable = steps, user, list(writable)
        self.unit = f"{user}-build"
        self._environment = dict(environment)
        self._private = f"{_PRIVATE}/{self.unit}"

    def __enter__(self) -> Builder:
        end(self.steps, self.user)
        os.mkdir(self._private, 0o700)
        try:
            inherited = {name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)}
            # Temporary folders of its own, so that nothing that it leaves there outlives it; the one on the disk where much may come.
            variables = {"HOME": "/tmp", "TMPDIR": "/var/tmp", "LC_ALL": "C.UTF-8", **inherited, **self._environment}
            # systemd reads the file; variables on its command line or of a unit are shown to everybody on the host.
            files.write(f"{self._private}/environment", "".join(f"{name}={_quoted(value)}\n" for name, value in sorted(variables.items())), 0o600)
        except BaseException:
            shutil.rmtree(self._private)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            shutil.rmtree(self._private, ignore_errors=True)
        else:
            end(self.steps, self.user)

    def step(self, name: str, command: Sequence[str], cwd: str) -> None:
        """Run a step that must succeed; what it has started ends with it."""
        properties = [f"User={self.user}", f"Group={self.user}", f"WorkingDirectory={cwd}", f"EnvironmentFile={self._private}/environment"]
        properties += [f"RuntimeMaxSec={SECONDS}", *_CONFINEMENT, *(f"ReadWritePaths={each}" for each in self.writable)]
        run = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={self.unit}", *(f"--property={each}" for each in properties), "--"]
        began = time.monotonic()
        rc, out, err = self.steps.run([*run, *command])
        if rc != 0:
            late = f"\nIt took longer than {SECONDS} seconds, and was ended." if time.monotonic() - began >= SECONDS else ""
            raise self.steps.error(name, f"{out}\n{err}{late}")


def end(steps: Steps, user: str) -> None:
    """End a build that a run has left behind that failed or was killed, and what is secret of it."""
    steps.run(["systemctl", "stop", f"{user}-build.service"])
    shutil.rmtree(f"{_PRIVATE}/{user}-build", ignore_errors=True)


def _quoted(value: str) -> str:
    """Return a value as systemd reads it back (systemd.exec(5), EnvironmentFile=)."""
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'
