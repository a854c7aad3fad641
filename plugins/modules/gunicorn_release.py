#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gunicorn_release
short_description: Read and make releases of apps on a host
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - The half of M(portico.web.gunicorn_deploy) that runs on the host. It is told what to make, and decides nothing.
options:
  state:
    description:
      - V(asked) reads what runs.
      - V(deployed) makes the releases of O(apps) and has them answer.
    type: str
    choices: [asked, deployed]
    default: asked
  apps:
    description: The apps, in the form in which M(portico.web.gunicorn_deploy) sends them.
    type: list
    elements: dict
    required: true
  environments:
    description: With O(state=deployed), the text of each app's environment file.
    type: dict
    default: {}
  secrets:
    description: By app, what opens its repository (C(key), C(token)) and its index (C(password)).
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: In check mode nothing is made.
  diff_mode:
    support: none
    description: M(portico.web.gunicorn_deploy) knows both texts, and shows the diff.
  idempotence:
    support: partial
    description: V(deployed) restarts what it is told to deploy. M(portico.web.gunicorn_deploy) tells it only what differs.
seealso:
  - module: portico.web.gunicorn_deploy
"""

EXAMPLES = r"""
- name: Ask what runs
  portico.web.gunicorn_release:
    apps:
      - {name: shop, python: /usr/bin/python3}
  register: running
"""

RETURN = r"""
apps:
  description: By name, what there is of each app (its release, whether it runs, its files' texts, its environment's digest).
  returned: state is asked
  type: dict
"""

import contextlib
import json
import os
import pwd
import shlex
import shutil
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.portico.web.plugins.module_utils import files, layout
from ansible_collections.portico.web.plugins.module_utils.environments import COMPLETE, Environments
from ansible_collections.portico.web.plugins.module_utils.slots import Slots, other
from ansible_collections.portico.web.plugins.module_utils.sources import Source
from ansible_collections.portico.web.plugins.module_utils.steps import StepError, Steps

RELEASES_KEPT = 5
SECONDS_FOR_A_HOOK = 900
UNITS = "/etc/systemd/system"

# What a service has and a command that runs once has not. Everything else of the unit, the sandbox, holds for both.
_ONLY_OF_SERVICES = {"Type", "NotifyAccess", "ExecStart", "ExecReload", "WorkingDirectory", "KillMode", "TimeoutStopSec", "Restart", "RestartSec"}

Order = dict[str, t.Any]


class App:
    """One app on this host."""

    def __init__(self, module: AnsibleModule, order: Order) -> None:
        self.order = order
        self.name: str = order["name"]
        self.unit = layout.app_unit(self.name)
        self.home = layout.app_home(self.name)
        self.state = f"/var/lib/{layout.app_state(self.name)}"
        self.steps = Steps(module, self.name, lambda: self.live_release() is not None)
        self.slots = Slots(self.name, self.steps)
        self.environments = Environments(order, self.steps)
        self.source = Source(order, self.steps)

    # ---- reading

    def read(self) -> dict[str, t.Any]:
        commit, says = self.source.commit()
        slot = self.slots.live()
        return {
            "python": self.environments.python_version(),
            "environment_works": slot is None or self.environments.works(f"{self.home}/slots/{slot}/release/environment"),
            "commit": commit,
            "git_says": says,
            "release": self.live_release(),
            "texts": self._texts(slot) if slot else {},
            "environment": self._environment_digest(slot) if slot else None,
            "runs": slot is not None and self.slots.runs(slot),
        }

    def live_release(self) -> str | None:
        """Return the identifier of the release that visitors meet, if that was made completely."""
        return self._release_of(self.slots.link)

    def _release_of(self, slot: str) -> str | None:
        release = files.target(f"{slot}/release")
        return os.path.basename(release) if release and os.path.isfile(f"{slot}/release/{COMPLETE}") else None

    def _environment_digest(self, slot: str) -> str | None:
        text = files.read(f"{layout.slot_settings(self.name, slot)}.env")
        return None if text is None else files.digest(text)

    def _texts(self, slot: str) -> dict[str, str]:
        """Return the texts of the files that are no secret, by their paths in which C(%i) is the slot."""
        wanted = [*(f"{UNITS}/{self.unit}@{kind}" for kind in (".socket", ".service")), f"{layout.slot_settings(self.name, '%i')}.conf.py"]
        found = {path: files.read(path.replace("%i", slot)) for path in wanted}
        return {path: text for path, text in found.items() if text is not None}

    # ---- acting

    def deploy(self, environment: str) -> None:
        """Make the release, start it in the slot that nobody meets, and lead visitors there when it is well.

        On any failure the live slot goes on as if nothing had been.

        :raises StepError: naming the app, the step, and what was said last.
        """
        live, before = self.slots.live(), {path: files.read(path) for path in self.order["files"] if "%i" not in path}
        slot = other(live) if live else layout.APP_SLOTS[0]
        self._make_user()
        self._make_folders(slot)
        # What a run that was killed has left there.
        self.slots.stop(slot)
        is_new = not os.path.isfile(f"{self.home}/releases/{self.order['release']}/{COMPLETE}")
        try:
            self._write_settings(slot, environment)
            self._make_release(slot)
            self._write({path: self.order["files"][path] for path in before})
            self.slots.fill(slot, self.order["release"])
            self.slots.start(slot)
            self.slots.see_it_well(slot, self.order["health"])
            self.slots.lead_to(slot)
        except BaseException as error:
            self.slots.stop(slot)
            self._write(before)
            if is_new:
                shutil.rmtree(f"{self.home}/releases/{self.order['release']}", ignore_errors=True)
            if isinstance(error, OSError):
                raise self.steps.error("writing its files", str(error)) from error
            raise
        if live:
            self.slots.retire(live)
        self._prune({self._release_of(f"{self.home}/slots/{each}") or "" for each in layout.APP_SLOTS})

    def _write_settings(self, slot: str, environment: str) -> None:
        settings = layout.slot_settings(self.name, slot)
        files.write(f"{settings}.env", environment, 0o600)
        files.write(f"{settings}.conf.py", self.order["files"][f"{layout.slot_settings(self.name, '%i')}.conf.py"], 0o644)

    def _make_user(self) -> None:
        comment = f"The app {self.name}, by portico.web"
        with contextlib.suppress(KeyError):
            if pwd.getpwnam(self.unit).pw_gecos != comment:
                raise self.steps.error("making its user", f"there is a user {self.unit} that portico.web did not make")
            return
        self.steps.step(
            "making its user",
            ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", self.state, "--shell", "/usr/sbin/nologin", "--comment", comment, self.unit],
        )

    def _make_folders(self, slot: str) -> None:
        # Who knows a path may pass through, on the way to static files and to the socket; nobody can look around.
        for folder in (layout.APPS, self.home, *(f"{self.home}/{each}" for each in ("releases", "environments", "slots")), f"{self.home}/slots/{slot}"):
            os.makedirs(folder, exist_ok=True)
            os.chmod(folder, 0o711)
        os.makedirs(f"{layout.APP_SETTINGS}/{self.name}", mode=0o755, exist_ok=True)
        if files.target(f"{self.home}/slots/{slot}/app.sock") is None:
            files.point(f"{self.home}/slots/{slot}/app.sock", layout.slot_socket(self.name, slot))

    def _write(self, texts: dict[str, str | None]) -> None:
        differing = {path: text for path, text in texts.items() if files.read(path) != text}
        for path, text in differing.items():
            if text is None:
                files.remove(path)
            else:
                files.write(path, text, 0o644)
        if differing:
            self.steps.step("reading its units", ["systemctl", "daemon-reload"])

    def _make_release(self, slot: str) -> None:
        folder = f"{self.home}/releases/{self.order['release']}"
        if os.path.isfile(f"{folder}/{COMPLETE}"):
            self.environments.repair(folder)
            return
        # What lies there otherwise is what an interrupted run had made so far.
        shutil.rmtree(folder, ignore_errors=True)
        source = f"{folder}/source"
        os.makedirs(source)
        os.chmod(folder, 0o711)
        self.source.fetch(source)
        self._give(source, self.unit)
        os.symlink(os.path.relpath(self.environments.make(source), folder), f"{folder}/environment")
        for hook in self.order["before_traffic"]:
            self._run_hook(hook, folder, slot)
        self._seal(source)
        with open(f"{folder}/{COMPLETE}", "w", encoding="utf-8") as file:
            json.dump({"commit": self.order["commit"]}, file)

    def _run_hook(self, hook: str, folder: str, slot: str) -> None:
        """Run a command as the app would run: same user, same environment, same sandbox."""
        source = f"{folder}/source"
        command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={self.unit}-before-traffic"]
        command += [f"--property={line}" for line in self._sandbox(slot)]
        command += [f"--property=WorkingDirectory={source}", f"--property=ReadWritePaths={source}", f"--property=RuntimeMaxSec={SECONDS_FOR_A_HOOK}"]
        command += [f"--setenv=PATH={folder}/environment/bin:/usr/local/bin:/usr/bin:/bin"]
        self.steps.step(f"running {hook!r}", [*command, "--", "/usr/bin/env", *shlex.split(hook)])

    def _sandbox(self, slot: str) -> list[str]:
        service = self.order["files"][f"{UNITS}/{self.unit}@.service"].replace("%i", slot)
        section = service.split("[Service]\n", 1)[1].split("\n[", 1)[0]
        lines = (line for line in section.splitlines() if "=" in line and not line.startswith("#"))
        return [line for line in lines if line.split("=", 1)[0] not in _ONLY_OF_SERVICES]

    def _seal(self, source: str) -> None:
        """Let the app read its code and not write it, and nginx read the static folders."""
        self.steps.step("sealing its source", ["chown", "--recursive", "--no-dereference", f"root:{self.unit}", source])
        self.steps.step("sealing its source", ["chmod", "--recursive", "u=rwX,g=rX,o=", source])
        for folder in self.order["static"]:
            path = source
            os.chmod(path, 0o751)
            for part in folder.split("/"):
                path = f"{path}/{part}"
                # A link made by the app would have root open what it leads to.
                if os.path.islink(path) or not os.path.isdir(path):
                    raise self.steps.error("sealing its source", f"the static folder {folder} is not there. Does a command of before_traffic make it?")
                os.chmod(path, 0o751)
            self.steps.step("opening its static files", ["chmod", "--recursive", "o=rX", path])

    def _give(self, folder: str, owner: str) -> None:
        self.steps.step("handing over its files", ["chown", "--recursive", "--no-dereference", f"{owner}:{self.unit}", folder])

    def _prune(self, keep: set[str]) -> None:
        """Keep the newest releases, and those of both slots; and the environments that they use."""
        folder = f"{self.home}/releases"
        by_age = sorted(os.listdir(folder), key=lambda name: os.stat(f"{folder}/{name}").st_mtime, reverse=True)
        for name in by_age[RELEASES_KEPT:]:
            if name not in keep:
                shutil.rmtree(f"{folder}/{name}")
        used = {os.path.basename(os.path.realpath(f"{folder}/{name}/environment")) for name in os.listdir(folder)}
        for name in os.listdir(f"{self.home}/environments"):
            if name not in used:
                shutil.rmtree(f"{self.home}/environments/{name}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["asked", "deployed"], "default": "asked"},
            "apps": {"type": "list", "elements": "dict", "required": True},
            "environments": {"type": "dict", "default": {}, "no_log": True},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    apps = [App(module, {**order, "secrets": module.params["secrets"].get(order["name"], {})}) for order in module.params["apps"]]
    if module.params["state"] == "asked":
        module.exit_json(changed=False, apps={app.name: app.read() for app in apps})
    if not module.check_mode:
        try:
            for app in apps:
                app.deploy(module.params["environments"][app.name])
        except StepError as error:
            module.fail_json(msg=str(error))
    module.exit_json(changed=bool(apps))


if __name__ == "__main__":
    main()
