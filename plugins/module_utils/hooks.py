# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Commands that are run once for a release, as the app would run: same user, same environment, same sandbox."""

from __future__ import annotations

import shlex
import time
import typing as t

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.module_utils.steps import Steps

SECONDS_TO_END = 10
"""What a command whose time is over has for cleaning up."""

# What a service has and a command that runs once has not. Everything else of the unit, the sandbox, holds for both.
_ONLY_OF_SERVICES = {"Type", "NotifyAccess", "ExecStart", "ExecReload", "WorkingDirectory", "KillMode", "TimeoutStartSec", "TimeoutStopSec", "Restart", "RestartSec"}

Order = dict[str, t.Any]


class Hooks:
    """The commands of one app."""

    def __init__(self, order: Order, steps: Steps) -> None:
        self.order, self.steps = order, steps
        self.unit = layout.app_unit(order["name"])

    def before_traffic(self, folder: str, slot: str) -> None:
        """Run the commands that a new release is made with. They can write its source."""
        for hook in self.order["before_traffic"]:
            self._run("before-traffic", hook, folder, slot, [f"--property=ReadWritePaths={folder}/source"])

    def after_traffic(self, folder: str, slot: str) -> None:
        """Run the commands that a release is followed by which visitors meet already.

        :raises StepError: which says that the new release is live all the same.
        """
        for hook in self.order["after_traffic"]:
            self._run("after-traffic", hook, folder, slot, [], "the new release is live, and stays so")

    def end(self) -> None:
        """End what a run has left behind that was killed while a command ran."""
        for when in ("before-traffic", "after-traffic"):
            self.steps.run(["systemctl", "stop", f"{self.unit}-{when}.service"])

    def _run(self, when: str, hook: str, folder: str, slot: str, more: list[str], meanwhile: str | None = None) -> None:
        seconds = self.order["hook_seconds"]
        command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={self.unit}-{when}"]
        command += [f"--property={line}" for line in self.sandbox(slot)]
        command += [f"--property=WorkingDirectory={folder}/source", f"--property=RuntimeMaxSec={seconds}", f"--property=TimeoutStopSec={SECONDS_TO_END}", *more]
        command += [f"--setenv=PATH={folder}/environment/bin:/usr/local/bin:/usr/bin:/bin"]
        began = time.monotonic()
        # systemd would put its variables in place of what begins with a dollar sign, before the command sees it.
        rc, out, err = self.steps.run([*command, "--", "/usr/bin/env", *(word.replace("$", "$$") for word in shlex.split(hook))])
        if rc == 0:
            return
        said = f"{out}\n{err}"
        # systemd-run says only that it failed.
        if time.monotonic() - began >= seconds:
            said += f"\nIt was not done after {seconds} seconds and was ended. If it needs longer, set hook_seconds."
        raise self.steps.error(f"running {hook!r} ({when.replace('-', '_')})", said, meanwhile)

    def sandbox(self, slot: str) -> list[str]:
        """Return the properties of the app's unit that confine it."""
        service = self.order["files"][f"{layout.UNITS}/{self.unit}@%i.service"].replace("%i", slot)
        section = service.split("[Service]\n", 1)[1].split("\n[", 1)[0]
        lines = (line for line in section.splitlines() if "=" in line and not line.startswith("#"))
        return [line for line in lines if line.split("=", 1)[0] not in _ONLY_OF_SERVICES]
