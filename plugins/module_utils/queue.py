# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where visitors wait on a small machine, while the old release has stopped and the new one has not started yet.

The link C(live) names a third socket for that time. systemd holds it, so nobody is refused. Nothing is behind it until it is
known which release goes on; then systemd-socket-proxyd(8) leads those who waited there. So nobody meets a release
that was not seen well, and where that is the old one, it answers all who waited.

A run that is killed gives up the lock on the gate by that. Who waits is then led to the old slot, whose socket
listens all the time and starts it again; the next run does away with the queue.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time

from ansible_collections.portico.web.plugins.module_utils import files, layout
from ansible_collections.portico.web.plugins.module_utils.slots import SECONDS_TO_DRAIN, Slots
from ansible_collections.portico.web.plugins.module_utils.steps import Steps

SECONDS_FOR_THOSE_WHO_WAITED = 60
"""For their answers, which come through the queue; as long as nginx waits for one."""

# proxyd needs six files a visitor; the socket's backlog is 2048.
_SERVICE = """\
# Written by portico.web for the time of a restart.
[Unit]
Description=Leads those who waited for {name} to the release that goes on

[Service]
Type=exec
ExecStartPre=+/usr/bin/flock {gate} /bin/true
ExecStart=/usr/lib/systemd/systemd-socket-proxyd --connections-max=4096 --exit-idle-time=1s {chosen}/app.sock
TimeoutStartSec=infinity
User={user}
LimitNOFILE=65536
CapabilityBoundingSet=
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProtectHome=yes
ProtectSystem=strict
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes

[Install]
WantedBy=multi-user.target
"""


class Queue:
    """The queue of one app on this host."""

    def __init__(self, slots: Slots, steps: Steps) -> None:
        self.slots, self.steps, self.name = slots, steps, slots.name
        self.folder = f"{slots.home}/slots/{layout.APP_QUEUE}"
        self.socket, self.service = (f"{slots.unit}-{layout.APP_QUEUE}.{kind}" for kind in ("socket", "service"))
        self.path = layout.slot_socket(self.name, layout.APP_QUEUE)
        self.gate = f"{os.path.dirname(self.path)}/queue.gate"
        self._gate: int | None = None

    def is_there(self) -> bool:
        """Return whether anything is left of a queue."""
        return os.path.lexists(self.folder) or any(os.path.lexists(f"{layout.UNITS}/{unit}") for unit in (self.socket, self.service))

    def open(self, live: str, socket_unit: str) -> None:
        """Have visitors wait from now on.

        :param live: the slot that they are led to if nobody says more.
        :param socket_unit: the text of the unit that the slots' sockets have.
        """
        os.makedirs(self.folder, exist_ok=True)
        os.chmod(self.folder, 0o711)
        # nginx finds the static files of the live slot here meanwhile.
        for link, target in (("chosen", f"../{live}"), ("release", f"../{live}/release"), ("app.sock", self.path)):
            files.point(f"{self.folder}/{link}", target)
        os.makedirs(os.path.dirname(self.gate), exist_ok=True)
        self._gate = os.open(self.gate, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        user = re.search(r"^SocketUser=(.+)$", socket_unit, re.MULTILINE)
        service = _SERVICE.format(name=self.name, gate=self.gate, chosen=f"{self.folder}/chosen", user=user.group(1) if user else "root")
        files.write(f"{layout.UNITS}/{self.socket}", socket_unit.replace("%i", layout.APP_QUEUE))
        files.write(f"{layout.UNITS}/{self.service}", service)
        self.steps.step("reading its units", ["systemctl", "daemon-reload"])
        # From boot on too: the link survives a power cut, and must lead somewhere.
        self.steps.step("letting visitors wait", ["systemctl", "enable", "--quiet", self.socket])
        self.steps.step("letting visitors wait", ["systemctl", "start", self.socket])
        files.point(self.slots.link, f"slots/{layout.APP_QUEUE}")

    def lead_to(self, slot: str) -> None:
        """Lead those who wait, and those who still come, to a slot that runs."""
        files.point(f"{self.folder}/chosen", f"../{slot}")
        if self._gate is not None:
            os.close(self._gate)
            self._gate = None

    def close(self, slot: str) -> None:
        """Lead visitors to a slot that runs, those who waited too, and do away with the queue."""
        if os.path.isdir(self.folder):
            self.lead_to(slot)
        if files.target(self.slots.link) != f"slots/{slot}":
            files.point(self.slots.link, f"slots/{slot}")
        if self._state(self.socket) != "inactive" or self._state(self.service) != "inactive":
            time.sleep(SECONDS_TO_DRAIN)  # for who looked the link up before and has not connected yet, which nobody can see
            self._wait_while(self.service, ("activating",))
            self.steps.run(["systemctl", "stop", self.socket])
            # It ends by itself when the last of those who waited has an answer.
            self._wait_while(self.service, ("activating", "active"))
        self.remove()

    def remove(self) -> None:
        """Take away all that there is of a queue, whoever waits in it."""
        self.steps.run(["systemctl", "disable", "--quiet", self.socket])
        self.steps.run(["systemctl", "stop", self.socket, self.service])
        self.steps.run(["systemctl", "reset-failed", self.socket, self.service])
        for unit in (self.socket, self.service):
            files.remove(f"{layout.UNITS}/{unit}")
        self.steps.run(["systemctl", "daemon-reload"])
        files.remove(self.gate)
        shutil.rmtree(self.folder, ignore_errors=True)

    def heal(self) -> None:
        """Do away with what a run left that was killed while visitors waited."""
        if not self.is_there():
            return
        live = self.slots.live()
        if live is None:
            self.remove()
            return
        self.steps.run(["systemctl", "start", *self.slots.units(live)])
        self.close(live)

    def _wait_while(self, unit: str, states: tuple[str, ...]) -> None:
        deadline = time.monotonic() + SECONDS_FOR_THOSE_WHO_WAITED
        while self._state(unit) in states and time.monotonic() < deadline:
            time.sleep(0.1)  # between two questions to systemd, which a module cannot subscribe to

    def _state(self, unit: str) -> str:
        return self.steps.run(["systemctl", "show", "--property", "ActiveState", "--value", unit])[1].strip() or "inactive"
