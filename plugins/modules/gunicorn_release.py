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
import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.portico.web.plugins.module_utils import files, layout

RELEASES_KEPT = 5
SECONDS_FOR_A_HOOK = 900
COMPLETE = "complete.json"

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
        self.environment_file = f"{layout.APP_SETTINGS}/{self.name}.env"
        self.current = f"{self.home}/current"

    # ---- reading

    def read(self) -> dict[str, t.Any]:
        commit, says = self._commit()
        return {
            "python": self._python_version(),
            "commit": commit,
            "git_says": says,
            "release": self.live_release(),
            "texts": {path: files.read(path) for path in self._own_files() if os.path.exists(path)},
            "environment": self._environment_digest(),
            "runs": self._runs(),
        }

    def live_release(self) -> str | None:
        """Return the identifier of the release that C(current) names, if that was made completely."""
        if not os.path.isfile(f"{self.current}/{COMPLETE}"):
            return None
        return os.path.basename(os.readlink(self.current))

    def _environment_digest(self) -> str | None:
        text = files.read(self.environment_file)
        return None if text is None else files.digest(text)

    def _own_files(self) -> list[str]:
        units = [f"/etc/systemd/system/{self.unit}{kind}" for kind in (".socket", ".service")]
        return [*units, f"{layout.APP_SETTINGS}/{self.name}.conf.py"]

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

    def _runs(self) -> bool:
        units = [f"{self.unit}.socket", f"{self.unit}.service"]
        return all(self._run(["systemctl", verb, "--quiet", unit])[0] == 0 for verb in ("is-active", "is-enabled") for unit in units)

    # ---- acting

    def deploy(self, environment: str) -> None:
        """Make the release and have it answer; on any failure the old one answers as before.

        :raises ReleaseError: naming the app, the step, and what was said last.
        """
        self._make_user()
        self._make_folders()
        wanted = {**self.order["files"], self.environment_file: environment}
        before = {path: files.read(path) for path in wanted}
        release_before = os.readlink(self.current) if os.path.islink(self.current) else None
        socket_differs = any(path.endswith(".socket") and text != before[path] for path, text in wanted.items())
        try:
            self._write(wanted)
            self._make_release()
            files.point(self.current, f"releases/{self.order['release']}")
            self._restart(socket_differs)
        except (ReleaseError, OSError) as error:
            self._put_back(before, release_before, socket_differs)
            if isinstance(error, OSError):
                raise self._error("writing its files", str(error)) from error
            raise
        self._prune(release_before)

    def _put_back(self, before: dict[str, str | None], release: str | None, socket_differs: bool) -> None:
        """Make files, link and units what they were; with no release before there is nothing to run."""
        if release:
            self._write(before)
            if files.target(self.current) != release:
                files.point(self.current, release)
            self._restart(socket_differs)
        else:
            self._run(["systemctl", "disable", "--quiet", "--now", f"{self.unit}.service", f"{self.unit}.socket"])
            self._write({**before, self.current: None})
        if os.path.basename(release or "") != self.order["release"]:
            shutil.rmtree(f"{self.home}/releases/{self.order['release']}", ignore_errors=True)

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

    def _make_folders(self) -> None:
        # Who knows a path may pass through, on the way to static files; nobody can look around.
        for folder in (layout.APPS, self.home, f"{self.home}/releases", f"{self.home}/environments"):
            os.makedirs(folder, exist_ok=True)
            os.chmod(folder, 0o711)
        os.makedirs(layout.APP_SETTINGS, mode=0o755, exist_ok=True)

    def _write(self, texts: dict[str, str | None]) -> None:
        for path, text in texts.items():
            if text is None:
                files.remove(path)
            else:
                files.write(path, text, 0o600 if path == self.environment_file else 0o644)
        self._step("reading its units", ["systemctl", "daemon-reload"])

    def _make_release(self) -> None:
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
            self._run_hook(hook, folder)
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

    def _run_hook(self, hook: str, folder: str) -> None:
        """Run a command as the app would run: same user, same environment, same sandbox."""
        source = f"{folder}/source"
        command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--unit={self.unit}-before-traffic"]
        command += [f"--property={line}" for line in self._sandbox()]
        command += [f"--property=WorkingDirectory={source}", f"--property=ReadWritePaths={source}", f"--property=RuntimeMaxSec={SECONDS_FOR_A_HOOK}"]
        command += [f"--setenv=PATH={folder}/environment/bin:/usr/local/bin:/usr/bin:/bin"]
        self._step(f"running {hook!r}", [*command, "--", "/usr/bin/env", *shlex.split(hook)])

    def _sandbox(self) -> list[str]:
        service = self.order["files"][f"/etc/systemd/system/{self.unit}.service"]
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

    def _restart(self, socket_differs: bool) -> None:
        """Start the live release. systemd goes on listening meanwhile, unless the socket itself is another."""
        socket, service = f"{self.unit}.socket", f"{self.unit}.service"
        self._run(["systemctl", "enable", "--quiet", socket, service])
        if socket_differs:
            self._run(["systemctl", "stop", service, socket])
        self._step("listening", ["systemctl", "start", socket])
        rc, _out, _err = self._run(["systemctl", "restart", service])
        if rc != 0:
            said = self._said(service)
            self._run(["systemctl", "reset-failed", service])
            raise self._error("starting the new release", said)

    def _said(self, service: str) -> str:
        """Return what the app said at its last start: a worker's words, if one came so far, because gunicorn's own bury them."""
        _rc, shown, _err = self._run(["systemctl", "show", "--property", "InvocationID,ExecMainPID", service])
        start = dict(line.split("=", 1) for line in shown.splitlines())
        _rc, out, _err = self._run(["journalctl", f"_SYSTEMD_INVOCATION_ID={start['InvocationID']}", "--no-pager", "--output", "json"])
        records = [record for record in map(json.loads, out.splitlines()) if isinstance(record.get("MESSAGE"), str)]
        worker = next((record["_PID"] for record in records if record["_PID"] != start["ExecMainPID"]), None)
        return "\n".join(record["MESSAGE"] for record in records if worker in (None, record["_PID"]))

    def _prune(self, previous: str | None) -> None:
        """Keep the newest releases, and whatever is live or was just now; and the environments that they use."""
        folder = f"{self.home}/releases"
        keep = {self.order["release"], os.path.basename(previous or "")}
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
