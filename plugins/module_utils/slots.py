# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The two slots of an app: a socket and a service each, and the link C(live) that names the one that visitors meet."""

from __future__ import annotations

import glob
import json
import os
import time

from ansible_collections.portico.web.plugins.module_utils import files, health, layout
from ansible_collections.portico.web.plugins.module_utils.steps import Steps

SECONDS_TO_DRAIN = 1
SECONDS_TO_SETTLE = 3
"""How long a release that is well is watched before it takes traffic, and a companion, which has no word for being well."""
REQUESTS_TO_SETTLE = 1000
"""A worker that ends by itself after fewer may have ended after the questions of the health check."""
SECONDS_BETWEEN = 0.2
_LATE = 124
"""What timeout(1) ends with when the time was over."""


class Slots:
    """The slots of one app on this host."""

    def __init__(self, name: str, steps: Steps) -> None:
        self.name, self.steps = name, steps
        self.unit = layout.app_unit(name)
        self.home = layout.app_home(name)
        self.link = f"{self.home}/live"

    # ---- reading

    def live(self) -> str | None:
        """Return the slot that the link names, or the one that those who wait are led to."""
        slot = os.path.basename(files.target(self.link) or "")
        if slot == layout.APP_QUEUE:
            slot = os.path.basename(files.target(f"{self.home}/slots/{slot}/chosen") or "")
        return slot if slot in layout.APP_SLOTS else None

    def runs(self, slot: str) -> bool:
        """Return whether the live slot runs, now and from boot on, and the other does not."""
        states = {each: self._states([*self.units(each), *self.companions(each)]) for each in layout.APP_SLOTS}
        return all(state == ("active", "enabled") for state in states[slot]) and not any(
            active not in ("inactive", "failed") or enabled == "enabled" for active, enabled in states[other(slot)]
        )

    def _states(self, units: list[str]) -> list[tuple[str, str]]:
        """Return whether each unit runs, and whether it does from boot on, in systemd's words."""
        _rc, out, _err = self.steps.run(["systemctl", "show", "--property", "ActiveState,UnitFileState", *units])
        blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in out.strip().split("\n\n")]
        return [(block.get("ActiveState", ""), block.get("UnitFileState", "")) for block in blocks]

    def is_(self, what: str, unit: str) -> bool:
        return self.steps.run(["systemctl", f"is-{what}", "--quiet", unit])[0] == 0

    def units(self, slot: str) -> list[str]:
        return [f"{self.unit}@{slot}.socket", f"{self.unit}@{slot}.service"]

    def unit_files(self, slot: str) -> list[str]:
        """Return the paths of a slot's units, its socket's first, and those of the companions that are there, whichever list they came from."""
        return [*(f"{layout.UNITS}/{unit}" for unit in self.units(slot)), *(f"{layout.UNITS}/{unit}" for unit in self.companions(slot))]

    def companions(self, slot: str) -> list[str]:
        marker = layout.companion_marker(self.name)
        return sorted(os.path.basename(path) for path in glob.glob(f"{layout.UNITS}/{self.unit}-*@{slot}.service") if marker in (files.read(path) or ""))

    def enabled_companions(self, slot: str) -> list[str]:
        """Return the companions of a slot that run from boot on."""
        units = self.companions(slot)
        return [unit for unit, (_active, enabled) in zip(units, self._states(units)) if enabled == "enabled"] if units else []

    # ---- acting

    def fill(self, slot: str, release: str) -> None:
        files.point(f"{self.home}/slots/{slot}/release", f"../../releases/{release}")

    def start(self, slot: str, seconds: int) -> None:
        """Start the release of a slot.

        :param seconds: which it has until it says that it is ready.
        """
        socket, service = self.units(slot)
        self.steps.step("listening", ["systemctl", "start", socket])
        rc, _out, _err = self.steps.run(["timeout", str(seconds), "systemctl", "start", service])
        if rc != 0:
            late = f"\nit was not ready after {seconds} seconds" if rc == _LATE else ""
            raise self.steps.error("starting the new release", f"{self.said(service)}{late}")

    def see_it_well(self, slot: str, check: health.Check, max_requests: int) -> None:
        """Ask the release at its own socket, where nobody else asks, and see it stay well for a moment.

        :param max_requests: after how many requests a worker ends by itself; never if 0.
        """
        _socket, service = self.units(slot)
        why = health.wait(check, layout.slot_socket(self.name, slot), lambda: self.is_("active", service))
        if why is None:
            why = self._watch(service, with_workers=not 0 < max_requests < REQUESTS_TO_SETTLE)
        if why is not None:
            raise self.steps.error("its health check", f"{self.said(service)}\n{why}")

    def see_it_still_well(self, slot: str, check: health.Check) -> None:
        """Ask once more whether a release is well that was."""
        _socket, service = self.units(slot)
        why = health.wait(check, layout.slot_socket(self.name, slot), lambda: self.is_("active", service))
        if why is not None:
            raise self.steps.error("its health check", f"{self.said(service)}\nbeside its companions, {why}")

    def _watch(self, service: str, with_workers: bool) -> str | None:
        """Return what became of a release that was well, if it did not stay so: what a process dies of may take a second or two."""
        main = self.steps.run(["systemctl", "show", "--property", "MainPID", "--value", service])[1].strip()
        workers = children(main) if with_workers else set()
        deadline = time.monotonic() + SECONDS_TO_SETTLE
        while True:
            if not self.is_("active", service):
                return "it was well, and has ended"
            if workers - children(main):
                return "it was well, and one of its workers has ended"
            if time.monotonic() >= deadline:
                return None
            time.sleep(SECONDS_BETWEEN)  # between two looks at processes, whose end nobody but their parent is told

    def stop_companions(self, slot: str) -> None:
        """Stop the companions of a slot, each as soon as it has ended what it has in hand.

        After a boot they would run again, until L(lead_to) has led elsewhere.
        """
        units = self.companions(slot)
        if units:
            self.steps.run(["systemctl", "stop", *units])
            self.steps.run(["systemctl", "reset-failed", *units])

    def start_companions(self, units: list[str]) -> None:
        """Start companions, and see that none ends at once.

        :raises StepError: naming the first that did, with its last words.
        """
        for unit in units:
            if self.steps.run(["systemctl", "start", unit])[0] != 0:
                raise self.steps.error(f"starting the companion {unit}", self.said(unit))
        deadline = time.monotonic() + SECONDS_TO_SETTLE
        while units:
            for unit, (active, _enabled) in zip(units, self._states(units)):
                if active != "active":
                    raise self.steps.error(f"starting the companion {unit}", f"{self.said(unit)}\nit has ended")
            if time.monotonic() >= deadline:
                return
            time.sleep(SECONDS_BETWEEN)  # between two looks at what sends no word when it is well

    def enable(self, slot: str) -> None:
        self.steps.run(["systemctl", "enable", "--quiet", *self.units(slot)])

    def lead_to(self, slot: str, companions: list[str]) -> None:
        """Lead visitors to a slot, now and after a boot. nginx looks the link up for each connection, and need not be told.

        :param companions: those that run with it from boot on. At no moment would a boot start those of both slots.
        """
        self.enable(slot)
        files.point(self.link, f"slots/{slot}")
        if companions:
            self.steps.run(["systemctl", "disable", "--quiet", *self.companions(other(slot))])
            self.steps.run(["systemctl", "enable", "--quiet", *companions])

    def retire(self, slot: str) -> None:
        """Stop a slot that was live, when it has nothing in hand any more."""
        self.steps.run(["systemctl", "disable", "--quiet", *self.units(slot)])
        time.sleep(SECONDS_TO_DRAIN)  # for who looked the link up before it was moved and has not connected yet, which nobody can see
        self.clear(slot)

    def pause(self, slot: str) -> None:
        """End what a slot has in hand, and stop it. It still listens: who comes there after all has it started again."""
        time.sleep(SECONDS_TO_DRAIN)  # for who looked the link up before it was moved and has not connected yet, as in retire()
        self.steps.step("stopping the old release", ["systemctl", "stop", self.units(slot)[1]])

    def clear(self, slot: str) -> None:
        """Stop a slot, and take its units away: its companions, then what answers, which ends what it has in hand, then what listens."""
        socket, service = self.units(slot)
        paths = self.unit_files(slot)
        self.stop_companions(slot)
        if any(active != "inactive" for active, _enabled in self._states([socket, service])):
            self.steps.run(["systemctl", "stop", service])
            self.steps.run(["systemctl", "stop", socket])
            self.steps.run(["systemctl", "reset-failed", service, socket])
        self.steps.run(["systemctl", "disable", "--quiet", *map(os.path.basename, paths)])
        for path in paths:
            files.remove(path)

    def said(self, service: str) -> str:
        """Return what the app said at its last start: a worker's words, if one came so far, because gunicorn's own bury them."""
        _rc, shown, _err = self.steps.run(["systemctl", "show", "--property", "InvocationID,ExecMainPID", service])
        start = dict(line.split("=", 1) for line in shown.splitlines())
        # What was said a moment ago may not be in the journal yet.
        self.steps.run(["journalctl", "--sync"])
        # Of a process that has ended before the journal looks at it, that knows the unit and not the start.
        matches = [f"_SYSTEMD_INVOCATION_ID={start['InvocationID']}", "+", f"_SYSTEMD_UNIT={service}", f"_PID={start['ExecMainPID']}"]
        _rc, out, _err = self.steps.run(["journalctl", *matches, "--no-pager", "--output", "json"])
        records = [record for record in map(json.loads, out.splitlines()) if isinstance(record.get("MESSAGE"), str)]
        worker = next((record["_PID"] for record in records if record["_PID"] != start["ExecMainPID"]), None)
        return "\n".join(record["MESSAGE"] for record in records if worker in (None, record["_PID"]))


def children(process: str) -> set[str]:
    """Return the numbers of a process's children; none where the process has ended."""
    return set((files.read(f"/proc/{process}/task/{process}/children") or "").split())


def other(slot: str) -> str:
    """Return the slot that is not this one."""
    return next(each for each in layout.APP_SLOTS if each != slot)
