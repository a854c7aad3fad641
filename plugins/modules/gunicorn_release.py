#!/usr/bin/python
# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: gunicorn_release
short_description: Read, make, go back to and remove releases of apps on a host
version_added: 0.1.0
author: Contributors to the Portico project (@portico)
description:
  - The half of M(portico.web.gunicorn_deploy) and M(portico.web.gunicorn_rollback) that runs on the host. It is told
    what to make, and decides nothing.
  - One run changes an app at a time. Another waits for it, at most ten minutes.
options:
  state:
    description:
      - V(asked) reads what runs.
      - V(deployed) makes the releases of O(apps) and has them answer, and removes the apps whose C(state) is V(absent).
      - V(rolled_back) has an earlier release of each app answer again.
    type: str
    choices: [asked, deployed, rolled_back]
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
  packages:
    description: With O(state=asked), the packages that are asked about too.
    type: list
    elements: str
    default: []
  holder:
    description: Who runs this, for those who have to wait.
    type: str
    default: somebody
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
  - module: portico.web.gunicorn_rollback
"""

EXAMPLES = r"""
- name: Ask what runs
  portico.web.gunicorn_release:
    apps:
      - {name: shop, python: /usr/bin/python3}
  register: running
"""

RETURN = r"""
missing:
  description: The packages that are not installed, in the order asked.
  returned: state is asked
  type: list
  elements: str
apps:
  description:
    - By name, with O(state=asked), what there is of each app (its release, whether it runs, its files' texts, its
      environment's digest).
    - Otherwise what was done (the release that is live, the one that was live before, the seconds it took).
  returned: success
  type: dict
"""

import contextlib
import os
import pwd
import shutil
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.portico.web.plugins.module_utils import files, layout, packages
from ansible_collections.portico.web.plugins.module_utils.environments import COMPLETE, Environments
from ansible_collections.portico.web.plugins.module_utils.hooks import Hooks
from ansible_collections.portico.web.plugins.module_utils.queue import Queue
from ansible_collections.portico.web.plugins.module_utils.releases import Releases
from ansible_collections.portico.web.plugins.module_utils.removal import Removal
from ansible_collections.portico.web.plugins.module_utils.serving import Lock, ServingError
from ansible_collections.portico.web.plugins.module_utils.slots import Slots, other
from ansible_collections.portico.web.plugins.module_utils.sources import Source
from ansible_collections.portico.web.plugins.module_utils.steps import StepError, Steps

SECONDS_FOR_ANOTHER_RUN = 600

Order = dict[str, t.Any]


class App:
    """One app on this host."""

    def __init__(self, module: AnsibleModule, order: Order) -> None:
        self.order = order
        self.name: str = order["name"]
        self.unit = layout.app_unit(self.name)
        self.home = layout.app_home(self.name)
        self.state = layout.app_data(self.name)
        self.module = module
        self.steps = Steps(module, self.name, lambda: self.live_release() is not None)
        self.slots = Slots(self.name, self.steps)
        self.queue = Queue(self.slots, self.steps)
        self.environments = Environments(order, self.steps)
        self.source = Source(order, self.steps)
        self.hooks = Hooks(order, self.steps)
        self.releases = Releases(order, self.steps, self.source, self.environments, self.hooks)
        self.removal = Removal(self.name, self.steps, self.releases, self.hooks, self.queue)

    # ---- reading

    def read(self) -> dict[str, t.Any]:
        if self.order.get("state") == "absent":
            return {"left": self.removal.left(self.order["data"] == "removed")}
        commit, says = self.source.commit()
        slot, release = self.slots.live(), self.live_release()
        return {
            "python": self.environments.python_version(),
            "commit": commit,
            "git_says": says,
            "release": release,
            "texts": self._texts(slot) if slot else {},
            "environment": self._environment_digest(slot) if slot else None,
            # Nobody waits for long: a queue that is still there is what a run left that was killed.
            "runs": slot is not None and self.slots.runs(slot) and not self.queue.is_there(),
            "owes": self.releases.owes(release),
            "live": self._live(),
        }

    def _live(self) -> dict[str, t.Any]:
        """Return what is live, for people and for CI."""
        release = self.live_release()
        return {
            "release": release,
            "revision": self.releases.record(release).get("revision"),
            "previous": self.releases.previous(release),
            "bytes": self.releases.bytes(),
            "releases": self.releases.kept(release),
        }

    def live_release(self) -> str | None:
        """Return the identifier of the release that visitors meet, if that was made completely."""
        return self._release_of(self.slots.link)

    def _release_of(self, slot: str) -> str | None:
        release = os.path.realpath(f"{slot}/release")
        return os.path.basename(release) if os.path.isfile(f"{release}/{COMPLETE}") else None

    def _environment_digest(self, slot: str) -> str | None:
        text = files.read(f"{layout.slot_settings(self.name, slot)}.env")
        return None if text is None else files.digest(text)

    def _texts(self, slot: str) -> dict[str, str]:
        """Return the texts of the files that are no secret, by their paths in which C(%i) is the slot."""
        wanted = [*(f"{layout.UNITS}/{self.unit}@{kind}" for kind in (".socket", ".service")), f"{layout.slot_settings(self.name, '%i')}.conf.py"]
        found = {path: files.read(path.replace("%i", slot)) for path in wanted}
        return {path: text for path, text in found.items() if text is not None}

    # ---- acting

    def alone(self, holder: str) -> Lock:
        """Return the right to change this app."""
        return Lock(holder, SECONDS_FOR_ANOTHER_RUN, layout.app_lock(self.name), f'changes the app "{self.name}"')

    def heal(self) -> None:
        """Put right what a run left behind that was killed."""
        self.hooks.end()
        self.queue.heal()

    def deploy(self, environment: str) -> dict[str, t.Any]:
        """Make the release, start it in the slot that nobody meets, and lead visitors there when it is well.

        On any failure the live slot goes on as if nothing had been.

        :raises StepError: naming the app, the step, and what was said last.
        """
        began = time.monotonic()
        self.heal()
        live, before, release = self.slots.live(), self.live_release(), self.order["release"]
        if not self.order["owes_only"]:
            self._switch(lambda slot: self._write_settings(slot, environment), live, release, before)
        now = self.slots.live()
        if now:
            self.releases.settle(release, now)
        return {"before": before, "seconds": round(time.monotonic() - began, 1), **self._live()}

    def roll_back(self, release: str) -> dict[str, t.Any]:
        """Have a kept release answer again, with its own settings and the environment of today.

        :raises StepError: naming the app, the step, and what was said last.
        """
        began = time.monotonic()
        live, before = self.slots.live(), self.live_release()
        if live is None:
            raise StepError(f'The app "{self.name}" has no release that serves. Deploy one.')
        self._switch(lambda slot: self._copy_settings(live, slot), live, release, before)
        return {"before": before, "seconds": round(time.monotonic() - began, 1), **self._live()}

    def _switch(self, write_settings: t.Callable[[str], None], live: str | None, release: str, before: str | None) -> None:
        texts = {path: files.read(path) for path in self.order["files"] if "%i" not in path}
        slot = other(live) if live else layout.APP_SLOTS[0]
        self._make_user()
        self._make_folders(slot)
        # What a run that was killed has left there.
        self.slots.stop(slot)
        is_new = not self.releases.is_complete(release)
        warning = self.releases.lacks_room(before) if is_new else None
        if warning:
            self.module.warn(warning)
        try:
            write_settings(slot)
            self.releases.make(release, slot)
            self._write({path: self.order["files"][path] for path in texts})
            self.slots.fill(slot, release)
            if live and self.order["switch"] == "restart":
                self._start_after(live, slot, release, texts)
            else:
                self._start(slot, release)
                self.slots.lead_to(slot)
        except BaseException as error:
            self.slots.stop(slot)
            # First, because it may be that there was no room.
            if is_new:
                self.releases.forget(release)
            self._write(texts)
            if isinstance(error, OSError):
                error = self.steps.error("writing its files", str(error))
            if warning and isinstance(error, StepError):
                # Of a task that fails Ansible shows the message alone.
                error = StepError(f"{error}\n{warning}")
            raise error from None
        self.releases.went_live(release, before)
        if live:
            self.slots.retire(live)
        self.releases.prune(release, {self._release_of(f"{self.home}/slots/{each}") or "" for each in layout.APP_SLOTS})

    def _start(self, slot: str, release: str) -> None:
        self.slots.start(slot)
        self.slots.see_it_well(slot, self.order["health"])
        self.releases.remember(release)

    def _start_after(self, live: str, slot: str, release: str, texts: dict[str, str | None]) -> None:
        """Start the new release when the old one has stopped, while visitors wait.

        :param texts: the units of the old release, which it is started with again if need be.
        """
        try:
            self.queue.open(live, self.order["files"][f"{layout.UNITS}/{self.unit}@.socket"])
            self.slots.pause(live)
            self._start(slot, release)
            # Before all that can be done while nobody waits any more.
            self.queue.lead_to(slot)
            self.slots.lead_to(slot)
        except BaseException:
            self.steps.run(["systemctl", "stop", *self.slots.units(slot)])
            self._write(texts)
            rc, _out, err = self.steps.run(["systemctl", "start", *self.slots.units(live)])
            self.queue.close(live)
            if rc != 0:
                raise self.steps.error("starting the old release again", f"{err}\n{self.slots.said(self.slots.units(live)[1])}", "nothing serves it now") from None
            raise
        self.queue.close(slot)

    def _write_settings(self, slot: str, environment: str) -> None:
        settings = layout.slot_settings(self.name, slot)
        files.write(f"{settings}.env", environment, 0o600)
        self._write_open_settings(slot)

    def _copy_settings(self, live: str, slot: str) -> None:
        """Give a slot the secrets of the live one, and the release's own settings."""
        settings = f"{layout.APP_SETTINGS}/{self.name}"
        for name in os.listdir(settings):
            new = f"{settings}/{slot}{name[len(live) :]}"
            if name.startswith(f"{live}.") and not name.endswith(files.SUFFIX):
                if os.path.isdir(f"{settings}/{name}"):
                    shutil.rmtree(new, ignore_errors=True)
                    shutil.copytree(f"{settings}/{name}", new, symlinks=True)
                else:
                    with open(f"{settings}/{name}", "rb") as file:
                        files.write_bytes(new, file.read(), os.stat(file.fileno()).st_mode & 0o777)
        self._write_open_settings(slot)

    def _write_open_settings(self, slot: str) -> None:
        files.write(f"{layout.slot_settings(self.name, slot)}.conf.py", self.order["files"][f"{layout.slot_settings(self.name, '%i')}.conf.py"], 0o644)

    def _make_user(self) -> None:
        comment = layout.app_comment(self.name)
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
        os.makedirs(os.path.dirname(self.state), mode=0o755, exist_ok=True)
        if not os.path.isdir(self.state):
            os.mkdir(self.state, 0o700)
        if os.stat(self.state).st_uid != pwd.getpwnam(self.unit).pw_uid:
            # New, or what was kept of an app of that name.
            self.steps.step("handing over its data", ["chown", "--recursive", "--no-dereference", f"{self.unit}:{self.unit}", self.state])

    def _write(self, texts: dict[str, str | None]) -> None:
        differing = {path: text for path, text in texts.items() if files.read(path) != text}
        for path, text in differing.items():
            if text is None:
                files.remove(path)
            else:
                files.write(path, text, 0o644)
        if differing:
            self.steps.step("reading its units", ["systemctl", "daemon-reload"])


def _deploy(module: AnsibleModule) -> dict[str, t.Any]:
    done: dict[str, t.Any] = {}
    for order in module.params["apps"]:
        app = App(module, order)
        with app.alone(module.params["holder"]) as lock:
            if order.get("state") == "absent":
                app.removal.remove(order["data"] == "removed")
                done[app.name] = {}
            else:
                done[app.name] = app.deploy(module.params["environments"][app.name])
            done[app.name]["waited_for"] = lock.waited_for
    return {"changed": bool(done), "apps": done}


def _roll_back(module: AnsibleModule) -> dict[str, t.Any]:
    done: dict[str, t.Any] = {}
    changed = False
    for order in module.params["apps"]:
        app = App(module, order)
        if not os.path.isdir(app.home):
            known = ", ".join(sorted(os.listdir(layout.APPS))) if os.path.isdir(layout.APPS) else ""
            raise StepError(f'There is no app "{app.name}" on this host. There {"are these: " + known if known else "is none"}.')
        with contextlib.ExitStack() as stack:
            if not module.check_mode:
                lock = stack.enter_context(app.alone(module.params["holder"]))
                app.heal()
            live = app.live_release()
            release = app.releases.find(order.get("wanted"), live)
            if release == live or module.check_mode:
                done[app.name] = {"before": live, "seconds": 0, **app._live(), "release": release}
            else:
                # How many are kept is not a matter of the one that is gone back to.
                keep = {"keep": app.releases.settings(live)["keep"]} if live and app.releases.settings(live) else {}
                done[app.name] = App(module, {**app.releases.settings(release), **keep, "name": app.name, "release": release}).roll_back(release)
            done[app.name]["waited_for"] = None if module.check_mode else lock.waited_for
            changed = changed or release != live
    return {"changed": changed, "apps": done}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["asked", "deployed", "rolled_back"], "default": "asked"},
            "apps": {"type": "list", "elements": "dict", "required": True},
            "environments": {"type": "dict", "default": {}, "no_log": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "holder": {"type": "str", "default": "somebody"},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["state"] == "asked":
            states = {order["name"]: App(module, order).read() for order in module.params["apps"]}
            module.exit_json(changed=False, missing=packages.missing(module, module.params["packages"]), apps=states)
        if module.params["state"] == "rolled_back":
            module.exit_json(**_roll_back(module))
        if module.check_mode:
            module.exit_json(changed=bool(module.params["apps"]), apps={})
        module.exit_json(**_deploy(module))
    except (StepError, ServingError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
