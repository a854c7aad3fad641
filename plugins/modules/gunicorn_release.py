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
import hashlib
import json
import os
import pwd
import re
import shlex
import shutil
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.portico.web.plugins.module_utils import files, health, layout

RELEASES_KEPT = 5
SECONDS_FOR_A_HOOK = 900
SECONDS_TO_DRAIN = 1
COMPLETE = "complete.json"
UNITS = "/etc/systemd/system"

# What a service has and a command that runs once has not. Everything else of the unit, the sandbox, holds for both.
_ONLY_OF_SERVICES = {"Type", "NotifyAccess", "ExecStart", "ExecReload", "WorkingDirectory", "KillMode", "TimeoutStopSec", "Restart", "RestartSec"}

Order = dict[str, t.Any]


class ReleaseError(Exception):
    """What went wrong, in words for the person."""


class App:
    """One app on this host."""

    def __init__(self, module: AnsibleModule, order: Order) -> None:
        self.module = module
        self.order = order
        self.name: str = order["name"]
        self.unit = layout.app_unit(self.name)
        self.home = layout.app_home(self.name)
        self.state = f"/var/lib/{layout.app_state(self.name)}"
        self.live = f"{self.home}/live"

    # ---- reading

    def read(self) -> dict[str, t.Any]:
        commit, says = self._commit()
        slot = self.live_slot()
        return {
            "python": self._python_version(),
            "commit": commit,
            "git_says": says,
            "release": self.live_release(),
            "texts": self._texts(slot) if slot else {},
            "environment": self._environment_digest(slot) if slot else None,
            "runs": slot is not None and self._runs(slot),
        }

    def live_slot(self) -> str | None:
        """Return the slot that the link C(live) names."""
        target = files.target(self.live)
        return os.path.basename(target) if target and os.path.basename(target) in layout.APP_SLOTS else None

    def live_release(self) -> str | None:
        """Return the identifier of the release that visitors meet, if that was made completely."""
        return self._release_of(self.live)

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

    def _python_version(self) -> str | None:
        rc, out, _err = self._run([self.order["python"], "-c", "import platform; print(platform.python_version())"], may_be_missing=True)
        return out.strip() if rc == 0 and out.startswith("3.") else None

    def _commit(self) -> tuple[str | None, str]:
        """Return the commit that the wanted version is now, and otherwise what git said."""
        url, version = self.order.get("git"), self.order.get("version")
        if not url:
            return None, ""
        if re.fullmatch(r"[0-9a-f]{40}", version):
            return version, ""
        rc, out, err = self._run(["git", "ls-remote", url, version, f"refs/tags/{version}^{{}}"], may_be_missing=True)
        found = dict(reversed(line.split("\t", 1)) for line in out.splitlines() if "\t" in line)
        for reference in (f"refs/tags/{version}^{{}}", f"refs/tags/{version}", f"refs/heads/{version}", version):
            if reference in found:
                return found[reference], ""
        return None, "; ".join(err.strip().splitlines()) if rc else ""

    def _runs(self, slot: str) -> bool:
        """Return whether the live slot runs, now and from boot on, and the other does not."""
        units = self._units(slot)
        return all(self._is(verb, unit) for verb in ("active", "enabled") for unit in units) and not any(
            self._is(verb, unit) for verb in ("active", "enabled") for unit in self._units(_other(slot))
        )

    def _is(self, what: str, unit: str) -> bool:
        return self._run(["systemctl", f"is-{what}", "--quiet", unit])[0] == 0

    def _units(self, slot: str) -> list[str]:
        return [f"{self.unit}@{slot}.socket", f"{self.unit}@{slot}.service"]

    # ---- acting

    def deploy(self, environment: str) -> None:
        """Make the release, start it in the slot that nobody meets, and lead visitors there when it is well.

        On any failure the live slot goes on as if nothing had been.

        :raises ReleaseError: naming the app, the step, and what was said last.
        """
        live, before = self.live_slot(), {path: files.read(path) for path in self.order["files"] if "%i" not in path}
        slot = _other(live) if live else layout.APP_SLOTS[0]
        self._make_user()
        self._make_folders(slot)
        # What a run that was killed has left there.
        self._stop(slot)
        is_new = not os.path.isfile(f"{self.home}/releases/{self.order['release']}/{COMPLETE}")
        try:
            self._write_settings(slot, environment)
            self._make_release(slot)
            self._write({path: self.order["files"][path] for path in before})
            self._fill(slot)
            self._start(slot)
            self._see_it_well(slot)
            self._lead_to(slot)
        except BaseException as error:
            self._stop(slot)
            self._write(before)
            if is_new:
                shutil.rmtree(f"{self.home}/releases/{self.order['release']}", ignore_errors=True)
            if isinstance(error, OSError):
                raise self._error("writing its files", str(error)) from error
            raise
        if live:
            self._retire(live)
        self._prune({self._release_of(f"{self.home}/slots/{each}") or "" for each in layout.APP_SLOTS})

    def _lead_to(self, slot: str) -> None:
        """Lead visitors to a slot, now and after a boot. nginx looks the link up for each connection, and need not be told."""
        self._run(["systemctl", "enable", "--quiet", *self._units(slot)])
        files.point(self.live, f"slots/{slot}")

    def _retire(self, slot: str) -> None:
        """Stop a slot that was live, when it has nothing in hand any more."""
        self._run(["systemctl", "disable", "--quiet", *self._units(slot)])
        # Who looked it up before the link was moved may not have connected yet, which nobody can see from here.
        time.sleep(SECONDS_TO_DRAIN)
        self._stop(slot)

    def _start(self, slot: str) -> None:
        socket, service = self._units(slot)
        self._step("listening", ["systemctl", "start", socket])
        rc, _out, _err = self._run(["systemctl", "start", service])
        if rc != 0:
            raise self._error("starting the new release", self._said(service))

    def _stop(self, slot: str) -> None:
        """Stop a slot: first what answers, which ends what it has in hand, then what listens."""
        socket, service = self._units(slot)
        if self._is("active", service) or self._is("active", socket) or self._is("failed", service):
            self._run(["systemctl", "stop", service])
            self._run(["systemctl", "stop", socket])
            self._run(["systemctl", "reset-failed", service, socket])
        self._run(["systemctl", "disable", "--quiet", *self._units(slot)])

    def _see_it_well(self, slot: str) -> None:
        """Ask the release at its own socket, where nobody else asks."""
        _socket, service = self._units(slot)
        why = health.wait(self.order["health"], layout.slot_socket(self.name, slot), lambda: self._is("active", service))
        if why is not None:
            raise self._error("its health check", f"{self._said(service)}\n{why}")

    def _fill(self, slot: str) -> None:
        files.point(f"{self.home}/slots/{slot}/release", f"../../releases/{self.order['release']}")

    def _write_settings(self, slot: str, environment: str) -> None:
        settings = layout.slot_settings(self.name, slot)
        files.write(f"{settings}.env", environment, 0o600)
        files.write(f"{settings}.conf.py", self.order["files"][f"{layout.slot_settings(self.name, '%i')}.conf.py"], 0o644)

    def _make_user(self) -> None:
        comment = f"The app {self.name}, by portico.web"
        with contextlib.suppress(KeyError):
            if pwd.getpwnam(self.unit).pw_gecos != comment:
                raise self._error("making its user", f"there is a user {self.unit} that portico.web did not make")
            return
        self._step(
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
            self._step("reading its units", ["systemctl", "daemon-reload"])

    def _make_release(self, slot: str) -> None:
        folder = f"{self.home}/releases/{self.order['release']}"
        if os.path.isfile(f"{folder}/{COMPLETE}"):
            return
        # What lies there otherwise is what an interrupted run had made so far.
        shutil.rmtree(folder, ignore_errors=True)
        source = f"{folder}/source"
        os.makedirs(source)
        os.chmod(folder, 0o711)
        if self.order["archive"]:
            self._step("unpacking its source", ["tar", "--extract", "--gzip", "--no-same-owner", "--file", self.order["archive"], "--directory", source])
        else:
            self._check_out(source)
        self._give(source, self.unit)
        os.symlink(os.path.relpath(self._make_environment(source), folder), f"{folder}/environment")
        for hook in self.order["before_traffic"]:
            self._run_hook(hook, folder, slot)
        self._seal(source)
        with open(f"{folder}/{COMPLETE}", "w", encoding="utf-8") as file:
            json.dump({"commit": self.order["commit"]}, file)

    def _check_out(self, source: str) -> None:
        git = ["git", "-C", source]
        self._step("fetching its source", [*git, "init", "--quiet"])
        one = [*git, "fetch", "--quiet", "--depth", "1", self.order["git"], self.order["commit"]]
        if self._run(one)[0] != 0:
            # Not every server gives a commit by its name.
            self._step("fetching its source", [*git, "fetch", "--quiet", self.order["git"], "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])
        self._step("checking out its source", [*git, "checkout", "--quiet", "--detach", self.order["commit"]])
        shutil.rmtree(f"{source}/.git")

    def _make_environment(self, source: str) -> str:
        """Make the virtual environment that the source asks for, or find the one that was made for the same."""
        requirements = f"{source}/{self.order['requirements']}"
        if not os.path.isfile(requirements):
            raise self._error("making its environment", f"the source has no {self.order['requirements']}. Set the key requirements")
        made_of = "\0".join((self.order["python"], self._python_version() or "", files.read(requirements) or "", self.order["gunicorn"]))
        folder = f"{self.home}/environments/{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"
        if os.path.isfile(f"{folder}/{COMPLETE}"):
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        os.mkdir(folder)
        self._give(folder, self.unit)
        # As the app's user: what pip builds may run code of strangers.
        as_user = ["setpriv", "--reuid", self.unit, "--regid", self.unit, "--clear-groups", "--"]
        pip = [*as_user, f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--no-input", "--no-cache-dir", "--disable-pip-version-check"]
        self._step("making its environment", [*as_user, self.order["python"], "-m", "venv", folder], cwd=source)
        self._step("installing its requirements", [*pip, "--requirement", requirements], cwd=source)
        if not os.path.exists(f"{folder}/bin/gunicorn"):
            self._step("installing gunicorn", [*pip, self.order["gunicorn"]], cwd=source)
        self._give(folder, "root")
        self._step("sealing its environment", ["chmod", "--recursive", "u=rwX,g=rX,o=", folder])
        with open(f"{folder}/{COMPLETE}", "w", encoding="utf-8") as file:
            json.dump({"python": self.order["python"]}, file)
        return folder

    def _run_hook(self, hook: str, folder: str, slot: str) -> None:
        """Run a command as the app would run: same user, same environment, same sandbox."""
        source = f"{folder}/source"
        command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={self.unit}-before-traffic"]
        command += [f"--property={line}" for line in self._sandbox(slot)]
        command += [f"--property=WorkingDirectory={source}", f"--property=ReadWritePaths={source}", f"--property=RuntimeMaxSec={SECONDS_FOR_A_HOOK}"]
        command += [f"--setenv=PATH={folder}/environment/bin:/usr/local/bin:/usr/bin:/bin"]
        self._step(f"running {hook!r}", [*command, "--", "/usr/bin/env", *shlex.split(hook)])

    def _sandbox(self, slot: str) -> list[str]:
        service = self.order["files"][f"{UNITS}/{self.unit}@.service"].replace("%i", slot)
        section = service.split("[Service]\n", 1)[1].split("\n[", 1)[0]
        lines = (line for line in section.splitlines() if "=" in line and not line.startswith("#"))
        return [line for line in lines if line.split("=", 1)[0] not in _ONLY_OF_SERVICES]

    def _seal(self, source: str) -> None:
        """Let the app read its code and not write it, and nginx read the static folders."""
        self._step("sealing its source", ["chown", "--recursive", "--no-dereference", f"root:{self.unit}", source])
        self._step("sealing its source", ["chmod", "--recursive", "u=rwX,g=rX,o=", source])
        for folder in self.order["static"]:
            path = source
            os.chmod(path, 0o751)
            for part in folder.split("/"):
                path = f"{path}/{part}"
                if not os.path.isdir(path):
                    raise self._error("sealing its source", f"the static folder {folder} is not there. Does a command of before_traffic make it?")
                os.chmod(path, 0o751)
            self._step("opening its static files", ["chmod", "--recursive", "o=rX", path])

    def _give(self, folder: str, owner: str) -> None:
        self._step("handing over its files", ["chown", "--recursive", "--no-dereference", f"{owner}:{self.unit}", folder])

    def _said(self, service: str) -> str:
        """Return what the app said at its last start: a worker's words, if one came so far, because gunicorn's own bury them."""
        _rc, shown, _err = self._run(["systemctl", "show", "--property", "InvocationID,ExecMainPID", service])
        start = dict(line.split("=", 1) for line in shown.splitlines())
        _rc, out, _err = self._run(["journalctl", f"_SYSTEMD_INVOCATION_ID={start['InvocationID']}", "--no-pager", "--output", "json"])
        records = [record for record in map(json.loads, out.splitlines()) if isinstance(record.get("MESSAGE"), str)]
        worker = next((record["_PID"] for record in records if record["_PID"] != start["ExecMainPID"]), None)
        return "\n".join(record["MESSAGE"] for record in records if worker in (None, record["_PID"]))

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

    def _step(self, step: str, command: list[str], cwd: str | None = None) -> None:
        rc, out, err = self._run(command, cwd=cwd)
        if rc != 0:
            raise self._error(step, f"{out}\n{err}")

    def _run(self, command: list[str], cwd: str | None = None, may_be_missing: bool = False) -> tuple[int, str, str]:
        # Nobody is there to answer a question.
        environment = {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8"}
        if may_be_missing and self.module.get_bin_path(command[0]) is None:
            return 127, "", f"{command[0]} is not installed"
        return self.module.run_command(command, cwd=cwd, environ_update=environment)

    def _error(self, step: str, said: str) -> ReleaseError:
        last = "\n".join(line for line in said.strip().splitlines()[-25:])
        meanwhile = "what served before goes on serving" if self.live_release() else "nothing serves it yet"
        return ReleaseError(f'The app "{self.name}" failed at {step}; {meanwhile}. It said:\n{last or "nothing"}')


def _other(slot: str) -> str:
    return next(each for each in layout.APP_SLOTS if each != slot)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["asked", "deployed"], "default": "asked"},
            "apps": {"type": "list", "elements": "dict", "required": True},
            "environments": {"type": "dict", "default": {}, "no_log": True},
        },
        supports_check_mode=True,
    )
    apps = [App(module, order) for order in module.params["apps"]]
    if module.params["state"] == "asked":
        module.exit_json(changed=False, apps={app.name: app.read() for app in apps})
    if not module.check_mode:
        try:
            for app in apps:
                app.deploy(module.params["environments"][app.name])
        except ReleaseError as error:
            module.fail_json(msg=str(error))
    module.exit_json(changed=bool(apps))


if __name__ == "__main__":
    main()
