# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Deploy apps: ask the host, compare, and send only the apps that differ."""

from __future__ import annotations

import os
import re
import tempfile
import time
import typing as t

from ansible_collections.portico.web.plugins.module_utils import archives, layout
from ansible_collections.portico.web.plugins.module_utils.files import digest
from ansible_collections.portico.web.plugins.plugin_utils import apps, controller, entries
from ansible_collections.portico.web.plugins.plugin_utils.action import PorticoAction
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError, problem

_SYSTEMD_WITH_CREDENTIALS = 247
_OWES = "its commands after traffic have not all been run"


class ActionModule(PorticoAction):
    """One remote call where nothing differs, two where something does."""

    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        began = time.monotonic()
        options = entries.arguments("gunicorn_deploy", args)
        if options["check_lists"]:
            self._check_lists(task_vars)
        everything = apps.normalise_apps(options["apps"])
        wanted = apps.present(everything)
        apps.check_folders(wanted, self._loader.path_dwim)
        of_source = ("git", "version", "known_hosts")
        asked = [
            {"name": app["name"], "python": app["python"], **{key: app["source"][key] for key in of_source}, "credentials": bool(app["credentials"])} for app in wanted
        ]
        leaving = [{key: app[key] for key in ("name", "state", "data")} for app in everything if app["state"] == "absent"]
        secrets = {app["name"]: apps.secrets(app, "key", "token") for app in wanted}
        question = {"state": "asked", "apps": asked + leaving, "packages": _packages(wanted), "secrets": secrets}
        answer = self._ask("gunicorn_release", question, task_vars)
        missing = answer["missing"]
        if missing and not self._task.check_mode:
            self._install(missing, task_vars)
            answer = self._ask("gunicorn_release", question, task_vars)
        states = answer["apps"]
        lacks_packages = bool(answer["missing"])

        orders, environments, credentials, differing, diffs = [], {}, {}, [], []
        for order in leaving:
            if states[order["name"]]["left"]:
                orders.append(order)
                differing.append({"name": order["name"], "release": None, "reasons": ["it is to be absent"]})
                diffs.append(_diff(f"the app {order['name']}", "".join(f"{each}\n" for each in states[order["name"]]["left"]), ""))
        for app in wanted:
            state = states[app["name"]]
            order = self._order(app, state, options["socket_user"], self._who(task_vars), lacks_packages)
            environment = apps.environment_file(app["environment"])
            credential = apps.credentials_text(app["credentials"])
            reasons = _reasons(order, environment, credential, state)
            if reasons:
                order["owes_only"] = reasons == [_OWES]
                orders.append(order)
                environments[app["name"]] = environment
                if app["credentials"]:
                    # Of an option that is secret, Ansible blots out every text, wherever it stands.
                    credentials[app["name"]] = credential
                differing.append({"name": app["name"], "release": order["release"], "reasons": reasons})
                after = {**dict.fromkeys(state["texts"], ""), **order["files"]}
                diffs += [_diff(path, state["texts"].get(path, ""), text) for path, text in after.items() if state["texts"].get(path) != text]
        live = {app["name"]: states[app["name"]]["live"] for app in wanted}
        result = {"changed": bool(orders or missing), "apps": differing, "live": live}
        if missing:
            result["packages"] = missing
        if orders and not self._task.check_mode:
            answer = self._send(wanted, orders, {"environments": environments, "credentials": credentials}, task_vars)
            for each in differing:
                told = answer["apps"][each["name"]]
                each.update({key: told[key] for key in ("seconds", "waited_for") if key in told})
                if each["name"] in live:
                    live[each["name"]] = {key: told[key] for key in live[each["name"]]}
            result["warnings"] = answer.get("warnings", [])
        result["seconds"] = round(time.monotonic() - began, 1)
        if self._task.diff:
            result["diff"] = diffs
        return result

    def _order(self, app: dict[str, t.Any], state: dict[str, t.Any], socket_user: str, who: str, lacks_packages: bool) -> dict[str, t.Any]:
        """Return what the host is to make of an app; the source's archive comes later, if it is needed.

        :param lacks_packages: whether it cannot be known yet what the host will say, in check mode.
        """
        if state["python"] is None and not lacks_packages:
            raise problem("gunicorn_apps", app["name"], "python", app["python"], "is not a Python 3 on this host. Install it, or name another.")
        if app["credentials"] and (state["systemd"] or _SYSTEMD_WITH_CREDENTIALS) < _SYSTEMD_WITH_CREDENTIALS:
            why = f"needs systemd {_SYSTEMD_WITH_CREDENTIALS} on the host, which has {state['systemd']}. Use the key environment there."
            raise problem("gunicorn_apps", app["name"], "credentials", entries.HIDDEN, why)
        source = app["source"]
        if source["git"] and state["commit"] is None and not lacks_packages:
            why = state["git_says"] or "the repository has no such branch or tag"
            raise problem("gunicorn_apps", app["name"], "source.version", source["version"], f"cannot be had from {source['git']}: {why}.")
        fingerprint = state["commit"] or "" if source["git"] else self._read(app, lambda: apps.fingerprint(source, self._loader.path_dwim))
        keys = ("name", "python", "requirements", "installer", "before_traffic", "after_traffic", "hook_seconds", "shared", "switch", "keep", "worker_class", "network", "max_requests")
        return {
            **{key: app[key] for key in keys},
            "gunicorn": apps.GUNICORN,
            "static": sorted(app["static"].values()),
            "companions": [layout.companion_unit(app["name"], companion["name"]) for companion in app["companions"]],
            **{key: source[key] for key in ("git", "package", "version", "known_hosts")},
            **apps.archive(source),
            "index": apps.public_index(app),
            "commit": state["commit"],
            "fingerprint": fingerprint,
            "release": apps.release_id(app, fingerprint, state["python"] or ""),
            "health": app["health"],
            "files": apps.host_files(app, socket_user),
            "provenance": {
                # Who may read a repository by its URL is not recorded.
                "source": re.sub(r"(?<=://)[^/@]*@", "", next(source[key] for key in apps.KINDS if source[key])),
                "version": source["version"],
                "revision": fingerprint,
                "who": who,
                "python": state["python"],
                "collection": controller.collection_version(),
            },
        }

    @staticmethod
    def _read(app: dict[str, t.Any], read: t.Callable[[], t.Any]) -> t.Any:
        """Return what is read of a source on the controller.

        :raises PorticoError: naming the app and the file, where something cannot be read.
        """
        try:
            return read()
        except OSError as error:
            kind = "path" if app["source"]["path"] is not None else "archive"
            raise problem("gunicorn_apps", app["name"], f"source.{kind}", app["source"][kind], f"cannot be read: {error.filename}: {error.strerror}.") from error

    def _send(self, wanted: list[dict[str, t.Any]], orders: list[dict[str, t.Any]], hidden: dict[str, dict[str, t.Any]], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        by_name = {app["name"]: app for app in wanted}
        with tempfile.TemporaryDirectory(prefix="portico-") as here:
            for order in orders:
                app = by_name.get(order["name"])
                if app is None:
                    continue
                source = app["source"]
                if source["path"] is not None:
                    archive = os.path.join(here, f"{order['name']}.tar.gz")
                    folder = self._loader.path_dwim(source["path"])
                    self._read(app, lambda: apps.pack(folder, archive))
                    order["archive"] = self._to_host(archive, f"{order['name']}.tar.gz")
                elif source["archive"] is not None:
                    suffix = archives.suffix(source["archive"])
                    order["archive"] = self._to_host(self._loader.path_dwim(source["archive"]), f"{order['name']}{suffix}")
        hidden = {**hidden, "secrets": {order["name"]: apps.secrets(by_name[order["name"]], "key", "token", "password") for order in orders if order["name"] in by_name}}
        return self._ask("gunicorn_release", {"state": "deployed", "apps": orders, **hidden, "holder": self._who(task_vars)}, task_vars)

    def _to_host(self, path: str, name: str) -> str:
        return self._transfer_file(path, self._connection._shell.join_path(self._remote_folder(), name))

    def _remote_folder(self) -> str:
        """Return the task's temporary folder on the host, made when a file goes there; Ansible removes it when the task is over."""
        if self._connection._shell.tmpdir is None:
            self._make_tmp_path()
        return self._connection._shell.tmpdir


def _packages(wanted: list[dict[str, t.Any]]) -> list[str]:
    """Return the packages that apps need: git only where one comes from a repository, and ssh only where that is one over SSH."""
    if not wanted:
        return []
    repositories = [app["source"]["git"] for app in wanted if app["source"]["git"]]
    over_ssh = any(apps.is_over_ssh(url) for url in repositories)
    return ["python3-venv", "ca-certificates", *(["git"] if repositories else []), *(["openssh-client"] if over_ssh else [])]


def _reasons(order: dict[str, t.Any], environment: str, credentials: str, state: dict[str, t.Any]) -> list[str]:
    found = []
    if state["release"] != order["release"]:
        found.append("another release")
    if state["texts"] != order["files"]:
        found.append("other settings")
    if state["environment"] != digest(environment):
        found.append("another environment")
    if state["credentials"] != digest(credentials):
        found.append("other credentials")
    if not state["environment_works"]:
        found.append("its environment lost its Python")
    if state["secrets_left"]:
        found.append("secrets of a run that was killed are in the slot that is not live")
    if not state["runs"]:
        found.append("it does not run, or not from boot on")
    if state["owes"] and order["after_traffic"]:
        found.append(_OWES)
    return found


def _diff(path: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": path, "after_header": path, "before": before, "after": after}
