# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The two slots of an app: a socket and a service each, and the link C(live) that names the one that visitors meet."""

from __future__ import annotations

import json
import os
import time

from ansible_collections.portico.web.plugins.module_utils import files, health, layout
from ansible_collections.portico.web.plugins.module_utils.steps import Steps

SECONDS_TO_DRAIN = 1


class Slots:
    """The slots of one app on this host."""

    def __init__(self, name: str, steps: Steps) -> None:
        self.name, self.steps = name, steps
        self.unit = layout.app_unit(name)
        self.home = layout.app_home(name)
        self.link = f"{self.home}/live"

    # ---- reading

    def live(self) -> str | None:
        """Return the slot that the link names."""
        target = files.target(self.link)
        return os.path.basename(target) if target and os.path.basename(target) in layout.APP_SLOTS else None

    def runs(self, slot: str) -> bool:
        """Return whether the live slot runs, now and from boot on, and the other does not."""
        units = self.units(slot)
        return all(self.is_(verb, unit) for verb in ("active", "enabled") for unit in units) and not any(
            self.is_(verb, unit) for verb in ("active", "enabled") for unit in self.units(other(slot))
        )

    def is_(self, what: str, unit: str) -> bool:
        return self.steps.run(["systemctl", f"is-{what}", "--quiet", unit])[0] == 0

    def units(self, slot: str) -> list[str]:
        return [f"{self.unit}@{slot}.socket", f"{self.unit}@{slot}.service"]

    # ---- acting

    def fill(self, slot: str, release: str) -> None:
        files.point(f"{self.home}/slots/{slot}/release", f"../../releases/{release}")

    def start(self, slot: str) -> None:
        socket, service = self.units(slot)
        self.steps.step("listening", ["systemctl", "start", socket])
        rc, _out, _err = self.steps.run(["systemctl", "start", service])
        if rc != 0:
            raise self.steps.error("starting the new release", self.said(service))

    def see_it_well(self, slot: str, check: health.Check) -> None:
        """Ask the release at its own socket, where nobody else asks."""
        _socket, service = self.units(slot)
        why = health.wait(check, layout.slot_socket(self.name, slot), lambda: self.is_("active", service))
        if why is not None:
            raise self.steps.error("its health check", f"{self.said(service)}\n{why}")

    def lead_to(self, slot: str) -> None:
        """Lead visitors to a slot, now and after a boot. nginx looks the link up for each connection, and need not be told."""
        self.steps.run(["systemctl", "enable", "--quiet", *self.units(slot)])
        files.point(self.link, f"slots/{slot}")

    def retire(self, slot: str) -> None:
        """Stop a slot that was live, when it has nothing in hand any more."""
        self.steps.run(["systemctl", "disable", "--quiet", *self.units(slot)])
        time.sleep(SECONDS_TO_DRAIN)  # for who looked the link up before it was moved and has not connected yet, which nobody can see
        self.stop(slot)

    def stop(self, slot: str) -> None:
        """Stop a slot: first what answers, which ends what it has in hand, then what listens."""
        socket, service = self.units(slot)
        if self.is_("active", service) or self.is_("active", socket) or self.is_("failed", service):
            self.steps.run(["systemctl", "stop", service])
            self.steps.run(["systemctl", "stop", socket])
            self.steps.run(["systemctl", "reset-failed", service, socket])
        self.steps.run(["systemctl", "disable", "--quiet", *self.units(slot)])

    def said(self, service: str) -> str:
        """Return what the app said at its last start: a worker's words, if one came so far, because gunicorn's own bury them."""
        _rc, shown, _err = self.steps.run(["systemctl", "show", "--property", "InvocationID,ExecMainPID", service])
        start = dict(line.split("=", 1) for line in shown.splitlines())
        _rc, out, _err = self.steps.run(["journalctl", f"_SYSTEMD_INVOCATION_ID={start['InvocationID']}", "--no-pager", "--output", "json"])
        records = [record for record in map(json.loads, out.splitlines()) if isinstance(record.get("MESSAGE"), str)]
        worker = next((record["_PID"] for record in records if record["_PID"] != start["ExecMainPID"]), None)
        return "\n".join(record["MESSAGE"] for record in records if worker in (None, record["_PID"]))


def other(slot: str) -> str:
    """Return the slot that is not this one."""
    return next(each for each in layout.APP_SLOTS if each != slot)
