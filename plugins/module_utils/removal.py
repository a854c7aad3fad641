# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Taking an app off a host. Each step can be repeated, and what is left says that there is still something to do."""

from __future__ import annotations

import os
import pwd
import shutil

from ansible_collections.portico.web.plugins.module_utils import files, layout
from ansible_collections.portico.web.plugins.module_utils.environments import Environments
from ansible_collections.portico.web.plugins.module_utils.hooks import Hooks
from ansible_collections.portico.web.plugins.module_utils.queue import Queue
from ansible_collections.portico.web.plugins.module_utils.slots import Slots
from ansible_collections.portico.web.plugins.module_utils.steps import StepError, Steps


class Removal:
    """The end of one app."""

    def __init__(self, name: str, steps: Steps, slots: Slots, hooks: Hooks, environments: Environments, queue: Queue) -> None:
        self.name, self.steps, self.slots, self.hooks, self.environments, self.queue = name, steps, slots, hooks, environments, queue
        self.unit = layout.app_unit(name)
        self.data = layout.app_data(name)
        self.folders = [layout.app_home(name), f"{layout.APP_SETTINGS}/{name}", f"{layout.SOCKETS}/{name}"]

    def left(self, with_data: bool) -> list[str]:
        """Return what there still is of the app: paths, and its user."""
        places = [*self._unit_files(), *self.folders, *([self.data] if with_data else [])]
        return [*filter(os.path.lexists, places), *([f"the user {self.unit}"] if self._has_user() else [])]

    def remove(self, with_data: bool) -> None:
        """Remove the app.

        :param with_data: whether its state directory goes too.
        :raises StepError: naming the step.
        """
        try:
            self._remove(with_data)
        except OSError as error:
            raise StepError(f'The app "{self.name}" could not be removed wholly: {error}. The next run goes on with it.') from error

    def _remove(self, with_data: bool) -> None:
        self.hooks.end()
        self.environments.end()
        self.queue.remove()
        units = self._unit_files()
        for path in units:
            unit = os.path.basename(path)
            self.steps.run(["systemctl", "disable", "--quiet", unit])
            # The sockets before the services, which they would start again: the paths are in that order.
            self.steps.run(["systemctl", "stop", unit])
            self.steps.run(["systemctl", "reset-failed", unit])
        for path in units:
            files.remove(path)
        self.steps.step("removing its units", ["systemctl", "daemon-reload"])
        if os.path.isdir(self.data):
            if with_data:
                shutil.rmtree(self.data)
            else:
                # The number of its user may be another user's one day. A next deploy hands the data to the app again.
                self.steps.step("keeping its data", ["chown", "--recursive", "--no-dereference", "root:root", self.data])
        # The user last, to whom files might still belong.
        for folder in self.folders:
            if os.path.isdir(folder):
                shutil.rmtree(folder)
        if self._has_user():
            self.steps.step("removing its user", ["userdel", self.unit])

    def _unit_files(self) -> list[str]:
        """Return the paths of its units that are there, each slot's socket first."""
        return [path for slot in layout.APP_SLOTS for path in self.slots.unit_files(slot) if os.path.lexists(path)]

    def _has_user(self) -> bool:
        try:
            return pwd.getpwnam(self.unit).pw_gecos == layout.app_comment(self.name)
        except KeyError:
            return False
