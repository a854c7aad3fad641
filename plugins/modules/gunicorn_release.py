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
  credentials:
    description: With O(state=deployed), each app's credentials, as one JSON text.
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
import glob
import json
import os
import pwd
import re
import shutil
import time
import typing as t
from urllib.parse import quote

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
SHORTEST_SECRET = 6
"""Shorter values of an environment stand everywhere, and blotting them out would only make messages unreadable."""
LEAST_OF_A_SECRET = 8
"""Shorter pieces of one are not looked for."""
BLOT = "********"

# TEST-NET-1 (RFC 5737), which is nobody's: a filter that works refuses it before it is sent.
_SPEAK_OUT = """
import socket
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 9))
except OSError:
    raise SystemExit(0)
raise SystemExit(3)
"""
_SPOKE_OUT = 3

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
        self.steps = Steps(module, self.name, self._meanwhile)
        self.slots = Slots(self.name, self.steps)
        self.queue = Queue(self.slots, self.steps)
        self.environments = Environments(order, self.steps)
        self.source = Source(order, self.steps)
        self.hooks = Hooks(order, self.steps)
        self.releases = Releases(order, self.steps, self.source, self.environments, self.hooks)
        self.removal = Removal(self.name, self.steps, self.slots, self.hooks, self.environments, self.queue)
        self.served = self.slots.live()
        self._hidden: set[str] = set()

    # ---- reading

    def read(self) -> dict[str, t.Any]:
        if self.order.get("state") == "absent":
            return {"left": self.removal.left(self.order["data"] == "removed")}
        commit, says = self.source.commit()
        slot, release = self.slots.live(), self.live_release()
        return {
            "python": self.environments.python_version(),
            "environment_works": slot is None or self.environments.works(f"{self.home}/slots/{slot}/release/environment"),
            "commit": commit,
            "git_says": says,
            "release": release,
            "texts": self._texts(slot) if slot else {},
            "environment": self._environment_digest(slot) if slot else None,
            "credentials": files.digest(self._credentials(slot)) if slot else None,
            "systemd": self._systemd_version() if self.order.get("credentials") else None,
            # Nobody waits for long: a queue that is still there is what a run left that was killed.
            "secrets_left": slot is not None and self._has_secrets(other(slot)),
            "runs": slot is not None and self.slots.runs(slot) and not self.queue.is_there(),
            "owes": self.releases.owes(release),
            "live": self.told(release),
        }

    def told(self, release: str | None) -> dict[str, t.Any]:
        """Return what is to be said of the live release, for people and for CI."""
        return {
            "release": release,
            "revision": self.releases.record(release).get("revision"),
            "previous": self.releases.previous(release),
            "bytes": self.releases.bytes(),
            "releases": self.releases.kept(release),
        }

    def _meanwhile(self) -> str:
        """Return what visitors meet, while a step fails."""
        if self.live_release() is None:
            return "nothing serves it yet"
        return "what served before goes on serving" if self.slots.live() == self.served else "the new release is live, and stays so"

    def live_release(self) -> str | None:
        """Return the identifier of the release that visitors meet, if that was made completely."""
        return self._release_of(self.slots.link)

    def _release_of(self, slot: str) -> str | None:
        release = os.path.realpath(f"{slot}/release")
        return os.path.basename(release) if os.path.isfile(f"{release}/{COMPLETE}") else None

    def _environment(self, slot: str) -> str | None:
        """Return the text of a slot's environment file, byte for byte; None where there is none."""
        try:
            with open(f"{layout.slot_settings(self.name, slot)}.env", encoding="utf-8", newline="") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def _environment_digest(self, slot: str) -> str | None:
        text = self._environment(slot)
        return None if text is None else files.digest(text)

    def _texts(self, slot: str) -> dict[str, str]:
        """Return the texts of the files that are no secret, by their paths in which C(%i) is the slot."""
        wanted = [path.replace(f"@{slot}.", "@%i.") for path in self.slots.unit_files(slot)]
        found = {path: files.read(path.replace("%i", slot)) for path in [*wanted, f"{layout.slot_settings(self.name, '%i')}.conf.py"]}
        return {path: text for path, text in found.items() if text is not None}

    def texts_of_today(self) -> dict[str, str]:
        """Return what L(_texts) does of the live slot, if there is one."""
        live = self.slots.live()
        return self._texts(live) if live else {}

    def _credentials(self, slot: str) -> str:
        """Return the credentials of a slot as the one text that the controller makes of them."""
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(layout.slot_credentials(self.name, slot)):
                with open(entry.path, "rb") as file:
                    found[entry.name] = file.read().decode(errors="replace")
        return json.dumps(found, sort_keys=True)

    def _systemd_version(self) -> int | None:
        _rc, out, _err = self.steps.run(["systemctl", "--version"], may_be_missing=True)
        found = re.match(r"systemd (\d+)", out)
        return int(found.group(1)) if found else None

    # ---- acting

    @contextlib.contextmanager
    def failing_plainly(self) -> t.Iterator[None]:
        """Tell what the disk refuses as a step that failed, and blot out the app's secrets in what any step said."""
        try:
            try:
                yield
            except OSError as error:
                raise self.steps.error("writing its files", str(error)) from None
        except StepError as error:
            raise StepError(_without(str(error), self._hidden)) from None

    def alone(self, holder: str) -> Lock:
        """Return the right to change this app."""
        return Lock(holder, SECONDS_FOR_ANOTHER_RUN, layout.app_lock(self.name), f'changes the app "{self.name}"')

    def heal(self) -> None:
        """Put right what a run left behind that was killed."""
        self.hooks.end()
        self.environments.end()
        self.queue.heal()
        self.served = self.slots.live()

    def deploy(self, environment: str, credentials: str) -> dict[str, t.Any]:
        """Make the release, start it in the slot that nobody meets, and lead visitors there when it is well.

        On any failure the live slot goes on as if nothing had been. Its companions, which never run beside those of the new
        release, end before the link is moved, and are started again if the new ones do not run.

        :raises StepError: naming the app, the step, and what was said last.
        """
        began = time.monotonic()
        secrets = json.loads(credentials)
        self._hidden = _hidden(environment, [*secrets.values(), *(self.order.get("secrets") or {}).values()])
        self.heal()
        before, release = self.live_release(), self.order["release"]
        # While it was waited for another run, that may have led visitors elsewhere.
        if not (self.order["owes_only"] and before == release):
            self._switch(release, environment, secrets)
        now = self.slots.live()
        if now:
            self.releases.settle(release, now)
        return {"before": before, "seconds": round(time.monotonic() - began, 1), **self.told(self.live_release())}

    def roll_back(self, release: str) -> dict[str, t.Any]:
        """Have a kept release answer again, with its own settings, and with the environment and the credentials of today.

        :raises StepError: naming the app, the step, and what was said last.
        """
        began = time.monotonic()
        before = self.live_release()
        environment, credentials = self.of_today()
        self._hidden = _hidden(environment, [*credentials.values()])
        self._switch(release, environment, credentials)
        return {"before": before, "seconds": round(time.monotonic() - began, 1), **self.told(self.live_release())}

    def of_today(self) -> tuple[str, dict[str, str]]:
        """Return the environment and the credentials of the live slot, with which this release could be gone back to.

        :raises StepError: if it cannot.
        """
        live = self.slots.live()
        environment = self._environment(live) if live else None
        if live is None or environment is None:
            raise StepError(f'The app "{self.name}" has no release that serves. Deploy one.')
        credentials = json.loads(self._credentials(live))
        missing = sorted(set(self._wanted_credentials()) - set(credentials))
        if missing:
            why = f"it wants what is not among the credentials of today: {', '.join(missing)}. Deploy it with them by gunicorn_deploy"
            raise self.steps.error("handing over its credentials", why)
        return environment, credentials

    def _wanted_credentials(self) -> list[str]:
        """Return the credentials that the release asks for: of an earlier one, not all that there are today."""
        unit = self.order["files"][f"{layout.UNITS}/{self.unit}@%i.service"]
        return sorted(re.findall(r"^LoadCredential=([^:\n]+):", unit, re.M))

    def _switch(self, release: str, environment: str, credentials: dict[str, str]) -> None:
        live, before = self.slots.live(), self.live_release()
        slot = other(live) if live else layout.APP_SLOTS[0]
        texts = {path.replace("%i", slot): text for path, text in self.order["files"].items()}
        self._refuse_others_units(slot, texts)
        # Those that run from boot on: a run that was killed may have stopped them.
        companions_before = self.slots.enabled_companions(live) if live else []
        is_new = not self.releases.is_complete(release)
        warning = None
        try:
            self._make_user()
            self._make_folders(slot)
            # What a run that was killed has left there.
            self.slots.clear(slot)
            warning = self.releases.lacks_room(before) if is_new else None
            if warning:
                self.module.warn(warning)
            self._write_settings(slot, environment, credentials)
            self._see_it_confined(slot)
            self.releases.make(release, slot)
            self._write(texts)
            self.slots.fill(slot, release)
            self._see_its_worker_class(slot)
            if live and self.order["switch"] == "restart":
                self._start_after(live, slot, release)
            else:
                self._start(slot, release, live)
                self.slots.lead_to(slot, self._companions(slot))
        except BaseException as error:
            if isinstance(error, OSError):
                error = self.steps.error("writing its files", str(error))
            if self.slots.live() != slot:
                error = self._undo(error, slot, release if is_new else None, companions_before)
            if warning and isinstance(error, StepError):
                # Of a task that fails Ansible shows the message alone.
                error = StepError(f"{error}\n{warning}")
            raise error from None
        self.releases.went_live(release, before)
        if live:
            # Before it stops: a slot that has stopped is not looked at again while nothing differs.
            self._forget_secrets(live)
            self.slots.retire(live)
        self.releases.prune(release, {self._release_of(f"{self.home}/slots/{each}") or "" for each in layout.APP_SLOTS})

    def _undo(self, error: BaseException, slot: str, new: str | None, companions_before: list[str]) -> BaseException:
        """Leave nothing of a release that did not come to life; return its error, which tells what could not be put back.

        :param new: the release, if it was made in this run.
        """
        self._forget_secrets(slot)
        self.slots.clear(slot)
        # First, because it may be that there was no room.
        if new:
            self.releases.forget(new)
        still = [unit for unit in companions_before if self.steps.run(["systemctl", "start", unit])[0] != 0]
        return StepError(f"{error}\nThe companions that ran before did not start again: {', '.join(still)}.") if still else error

    def _companions(self, slot: str) -> list[str]:
        """Return the units that run beside the release in a slot."""
        return [f"{unit}@{slot}.service" for unit in self.order["companions"]]

    def _start(self, slot: str, release: str, live: str | None) -> None:
        """Start the new release and see it well; then its companions, after those of the live slot."""
        self.slots.start(slot, self.order["health"]["seconds"])
        self.slots.see_it_well(slot, self.order["health"], self.order["max_requests"])
        if live:
            self.slots.stop_companions(live)
        companions = self._companions(slot)
        self.slots.start_companions(companions)
        if companions:
            # Those before may have taken minutes to end, and these take their share of the memory.
            self.slots.see_it_still_well(slot, self.order["health"])
        # Last, because it may be live already with other settings, which it keeps if these do not do.
        self.releases.remember(release)

    def _start_after(self, live: str, slot: str, release: str) -> None:
        """Start the new release when the old one has stopped, while visitors wait."""
        try:
            # All of the old one ends, whose memory the new one needs. Companions may take their time, so nobody waits for them.
            self.slots.stop_companions(live)
            self.queue.open(live, self.order["files"][f"{layout.UNITS}/{self.unit}@%i.socket"])
            self.slots.pause(live)
            self._start(slot, release, None)
            # From boot on first: whoever is led there has to meet it then, too.
            self.slots.enable(slot)
            # Before all that can be done while nobody waits any more.
            self.queue.lead_to(slot)
            self.slots.lead_to(slot, self._companions(slot))
        except BaseException:
            if self.slots.live() == slot:
                # Those who waited are with the new one already.
                raise
            self.slots.stop_companions(slot)
            self.steps.run(["systemctl", "stop", *self.slots.units(slot)])
            rc, _out, err = self.steps.run(["systemctl", "start", *self.slots.units(live)])
            self.queue.close(live)
            if rc != 0:
                raise self.steps.error("starting the old release again", f"{err}\n{self.slots.said(self.slots.units(live)[1])}", "nothing serves it now") from None
            raise
        self.queue.close(slot)

    def _refuse_others_units(self, slot: str, texts: dict[str, str]) -> None:
        """Refuse to write over a unit of another app, which another play may have brought: C(web) of C(shop) and the app C(shop-web)."""
        ours = self.slots.unit_files(slot)
        for path in texts:
            text = files.read(path) if path.startswith(layout.UNITS) else None
            if text is not None and (path not in ours or (layout.COMPANION_MARK in text and layout.companion_marker(self.name) not in text)):
                raise self.steps.error("writing its units", f"{path} is there, and is not of this app. Give the app or its companion another name")

    def _see_it_confined(self, slot: str) -> None:
        """See that the host keeps what confinement promises and systemd would pass over in silence where it cannot."""
        run = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", *(f"--property={line}" for line in self.hooks.sandbox(slot)), "--"]
        if self.order["network"] == "local":
            step = "confining it to the local network"
            rc, _out, err = self.steps.run([*run, self.order["python"], "-c", _SPEAK_OUT])
            if rc == _SPOKE_OUT:
                raise self.steps.error(step, "this host does not filter the addresses that a unit speaks to. Write network: all or none")
            if rc != 0:
                raise self.steps.error(step, err)
        names = self._wanted_credentials()
        if names and self.steps.run([*run, "/bin/sh", "-c", 'for name; do test -r "$CREDENTIALS_DIRECTORY/$name" || exit 1; done', "sh", *names])[0] != 0:
            why = "systemd did not hand them over. In a container it needs mounts that are shared (mount --make-rshared /). Otherwise use the key environment"
            raise self.steps.error("handing over its credentials", why)

    def _see_its_worker_class(self, slot: str) -> None:
        """See that the release's environment has the worker that was asked for, by its file: nothing of the app is run as root."""
        wanted = {"asgi": ("gunicorn/workers/gasgi.py", "gunicorn 24 or newer"), "uvicorn": ("uvicorn_worker/__init__.py", "uvicorn-worker")}
        path, package = wanted.get(self.order["worker_class"], (None, None))
        if path and not glob.glob(f"{glob.escape(self.home)}/slots/{slot}/release/environment/lib/*/site-packages/{path}"):
            raise self.steps.error("finding its worker class", f"worker_class is {self.order['worker_class']}, and its environment has no {package}. Add it to the requirements")

    def _write_settings(self, slot: str, environment: str, credentials: dict[str, str]) -> None:
        settings = layout.slot_settings(self.name, slot)
        folder = layout.slot_credentials(self.name, slot)
        shutil.rmtree(folder, ignore_errors=True)
        if credentials:
            os.mkdir(folder, 0o700)
        for name, text in credentials.items():
            files.write(f"{folder}/{name}", text, 0o600)
        files.write(f"{settings}.env", environment, 0o600)

    def _forget_secrets(self, slot: str) -> None:
        """Remove the secrets of a slot that visitors do not meet: they may have been changed because somebody came to know them."""
        for path in self._secrets(slot):
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                files.remove(path)

    def _secrets(self, slot: str) -> list[str]:
        environment = f"{layout.slot_settings(self.name, slot)}.env"
        return [environment, environment + files.SUFFIX, layout.slot_credentials(self.name, slot)]

    def _has_secrets(self, slot: str) -> bool:
        return any(map(os.path.lexists, self._secrets(slot)))

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
        files.open_folders(f"{layout.APP_SETTINGS}/{self.name}", layout.APP_SETTINGS, os.path.dirname(layout.APP_SETTINGS), os.path.dirname(self.state), layout.STATE)
        if files.target(f"{self.home}/slots/{slot}/app.sock") is None:
            files.point(f"{self.home}/slots/{slot}/app.sock", layout.slot_socket(self.name, slot))
        if not os.path.isdir(self.state):
            os.mkdir(self.state, 0o700)
        if os.stat(self.state).st_uid != pwd.getpwnam(self.unit).pw_uid:
            # New, or what was kept of an app of that name.
            self.steps.step("handing over its data", ["chown", "--recursive", "--no-dereference", f"{self.unit}:{self.unit}", self.state])

    def _write(self, texts: dict[str, str]) -> None:
        """Write the units and settings of one slot: what the other one runs with stays as it is, limits and credentials too."""
        for path, text in texts.items():
            files.write(path, text, 0o644)
        self.steps.step("reading its units", ["systemctl", "daemon-reload"])


def _hidden(environment: str, secrets: list[str]) -> set[str]:
    """Return what must not be shown of a text of systemd's EnvironmentFile= and of other secrets, in all the forms in which programs print it."""
    values = [re.sub(r"\\(.)", r"\1", value, flags=re.S) for value in re.findall(r'^\w+="((?:[^"\\]|\\.)*)"$', environment, re.M | re.S)]
    values += [secret for secret in secrets if secret]
    values += [login for value in values for login in re.findall(r"\w://[^/?#\s]*?:([^/?#\s]+)@", value)]
    # The journal gives a value of several lines line by line, without the spaces at their ends.
    parts = {part for value in values for line in (value, *value.splitlines()) for part in (line, line.rstrip(), line.strip())}
    forms = {form for part in parts for form in (part, repr(part)[1:-1], json.dumps(part)[1:-1], quote(part, safe=""))}
    return {form for form in forms if len(form) >= SHORTEST_SECRET}


def _without(text: str, secrets: set[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, BLOT)
        if len(secret) < 2 * LEAST_OF_A_SECRET:
            continue
        # Shortened, as libraries do it in their errors: the beginning, three dots, the end.
        if secret[:LEAST_OF_A_SECRET] in text and "..." in text:
            text = re.sub("|".join(re.escape(secret[:length]) + r"(?=\.\.\.)" for length in range(len(secret), LEAST_OF_A_SECRET - 1, -1)), BLOT, text)
        if secret[-LEAST_OF_A_SECRET:] in text and "..." in text:
            text = re.sub("|".join(r"(?<=\.\.\.)" + re.escape(secret[-length:]) for length in range(len(secret), LEAST_OF_A_SECRET - 1, -1)), BLOT, text)
    return text


def _whole(module: AnsibleModule, order: Order) -> Order:
    """Return an order with what opens its repository and its index."""
    return {**order, "secrets": module.params["secrets"].get(order["name"], {})}


def _each(module: AnsibleModule, act: t.Callable[[Order], dict[str, t.Any]]) -> dict[str, t.Any]:
    """Act on every app, on those too that come after one that fails, and return what was done.

    Ends the module where one has failed, with the words of each.
    """
    done: dict[str, t.Any] = {}
    failed = []
    has_moved = False
    for order in module.params["apps"]:
        link = f"{layout.app_home(order['name'])}/live"
        before = files.target(link)
        try:
            done[order["name"]] = act(order)
        except (StepError, ServingError) as error:
            failed.append(str(error))
            has_moved = has_moved or files.target(link) != before
    if failed:
        others = f"Done in the same run: {', '.join(done)}." if done else ""
        module.fail_json(msg="\n".join([*failed, *([others] if others else [])]), changed=has_moved or bool(done), apps=done)
    return done


def _deploy(module: AnsibleModule) -> dict[str, t.Any]:
    def deploy(order: Order) -> dict[str, t.Any]:
        app = App(module, _whole(module, order))
        with app.failing_plainly(), app.alone(module.params["holder"]) as lock:
            if order.get("state") == "absent":
                app.removal.remove(order["data"] == "removed")
                told: dict[str, t.Any] = {}
            else:
                told = app.deploy(module.params["environments"].get(app.name, ""), module.params["credentials"].get(app.name, "{}"))
        return {**told, "waited_for": lock.waited_for}

    done = _each(module, deploy)
    return {"changed": bool(done), "apps": done}


def _roll_back(module: AnsibleModule) -> dict[str, t.Any]:
    def roll_back(order: Order) -> dict[str, t.Any]:
        app = App(module, order)
        if not os.path.isdir(app.home):
            known = ", ".join(sorted(os.listdir(layout.APPS))) if os.path.isdir(layout.APPS) else ""
            raise StepError(f'There is no app "{app.name}" on this host. There {"are these: " + known if known else "is none"}.')
        with app.failing_plainly(), contextlib.ExitStack() as stack:
            lock = None
            if not module.check_mode:
                lock = stack.enter_context(app.alone(module.params["holder"]))
                app.heal()
            live = app.live_release()
            release = app.releases.find(order.get("wanted"), live)
            if release == live:
                done = {"before": live, "seconds": 0, **app.told(release)}
                return {**done, "waited_for": lock.waited_for if lock else None, "changed": False}
            # How many are kept is not a matter of the one that is gone back to.
            keep = {"keep": app.releases.settings(live)["keep"]} if live and app.releases.settings(live) else {}
            then = app.releases.settings(release)
            # Neither is who may connect: that is nginx's user on this host, as it is now.
            socket = f"{layout.UNITS}/{app.unit}@%i.socket"
            now = {path: text for path, text in app.texts_of_today().items() if path == socket}
            again = App(module, {**then, "files": {**then["files"], **now}, **keep, "name": app.name, "release": release})
            told = {"before": live, "seconds": 0, **app.told(release)}
            stack.enter_context(again.failing_plainly())
            again.of_today()
            if not module.check_mode:
                told = again.roll_back(release)
        return {**told, "waited_for": lock.waited_for if lock else None, "changed": True}

    done = _each(module, roll_back)
    return {"changed": any(told["changed"] for told in done.values()), "apps": done}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["asked", "deployed", "rolled_back"], "default": "asked"},
            "apps": {"type": "list", "elements": "dict", "required": True},
            "environments": {"type": "dict", "default": {}, "no_log": True},
            "credentials": {"type": "dict", "default": {}, "no_log": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "holder": {"type": "str", "default": "somebody"},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["state"] == "asked":
            states = {order["name"]: App(module, _whole(module, order)).read() for order in module.params["apps"]}
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
