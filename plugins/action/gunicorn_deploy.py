# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Deploy apps: ask the host, compare, and send only the apps that differ."""

from __future__ import annotations

import os
import tempfile
import typing as t

from ansible_collections.portico.web.plugins.module_utils import archives
from ansible_collections.portico.web.plugins.module_utils.files import digest
from ansible_collections.portico.web.plugins.plugin_utils import apps, entries
from ansible_collections.portico.web.plugins.plugin_utils.action import PorticoAction
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError, problem

_SHORTEST_SECRET = 6
"""Shorter values of an environment stand everywhere, and blotting them out would only make messages unreadable."""


class ActionModule(PorticoAction):
    """One remote call where nothing differs, two where something does."""

    TRANSFERS_FILES = True

    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        options = entries.arguments("gunicorn_deploy", args)
        wanted = apps.normalise_apps(options["apps"])
        apps.check_folders(wanted, self._loader.path_dwim)
        of_source = ("git", "version", "known_hosts")
        asked = [{"name": app["name"], "python": app["python"], **{key: app["source"][key] for key in of_source}} for app in wanted]
        secrets = {app["name"]: apps.secrets(app, "key", "token") for app in wanted}
        states = self._ask("gunicorn_release", {"state": "asked", "apps": asked, "secrets": secrets}, task_vars)["apps"]

        orders, environments, differing, diffs = [], {}, [], []
        for app in wanted:
            state = states[app["name"]]
            order = self._order(app, state, options["socket_user"])
            environment = apps.environment_file(app["environment"])
            reasons = _reasons(order, environment, state)
            if reasons:
                orders.append(order)
                environments[app["name"]] = environment
                differing.append({"name": app["name"], "release": order["release"], "reasons": reasons})
                diffs += [_diff(path, state["texts"].get(path, ""), text) for path, text in order["files"].items() if state["texts"].get(path) != text]
        if orders and not self._task.check_mode:
            self._send(wanted, orders, environments, task_vars)
        result = {"changed": bool(orders), "apps": differing}
        if self._task.diff:
            result["diff"] = diffs
        return result

    def _order(self, app: dict[str, t.Any], state: dict[str, t.Any], socket_user: str) -> dict[str, t.Any]:
        """Return what the host is to make of an app; the source's archive comes later, if it is needed."""
        if state["python"] is None and not self._task.check_mode:
            raise problem("gunicorn_apps", app["name"], "python", app["python"], "is not a Python 3 on this host. Install it, or name another.")
        source = app["source"]
        if source["git"] and state["commit"] is None and not self._task.check_mode:
            why = state["git_says"] or "the repository has no such branch or tag"
            raise problem("gunicorn_apps", app["name"], "source.version", source["version"], f"cannot be had from {source['git']}: {why}.")
        fingerprint = state["commit"] or "" if source["git"] else apps.fingerprint(source, self._loader.path_dwim)
        keys = ("name", "python", "requirements", "installer", "before_traffic")
        return {
            **{key: app[key] for key in keys},
            "gunicorn": apps.GUNICORN,
            "static": sorted(app["static"].values()),
            **{key: source[key] for key in ("git", "package", "version", "known_hosts")},
            **apps.archive(source),
            "index": apps.public_index(app),
            "commit": state["commit"],
            "fingerprint": fingerprint,
            "release": apps.release_id(app, fingerprint, state["python"] or ""),
            "health": app["health"],
            "files": apps.host_files(app, socket_user),
        }

    def _send(self, wanted: list[dict[str, t.Any]], orders: list[dict[str, t.Any]], environments: dict[str, str], task_vars: dict[str, t.Any]) -> None:
        by_name = {app["name"]: app for app in wanted}
        with tempfile.TemporaryDirectory(prefix="portico-") as here:
            for order in orders:
                source = by_name[order["name"]]["source"]
                if source["path"] is not None:
                    archive = os.path.join(here, f"{order['name']}.tar.gz")
                    apps.pack(self._loader.path_dwim(source["path"]), archive)
                    order["archive"] = self._to_host(archive, f"{order['name']}.tar.gz")
                elif source["archive"] is not None:
                    suffix = archives.suffix(source["archive"])
                    order["archive"] = self._to_host(self._loader.path_dwim(source["archive"]), f"{order['name']}{suffix}")
        secrets = {order["name"]: apps.secrets(by_name[order["name"]], "key", "token", "password") for order in orders}
        try:
            self._ask("gunicorn_release", {"state": "deployed", "apps": orders, "environments": environments, "secrets": secrets}, task_vars)
        except PorticoError as error:
            # The journal gives a value of several lines line by line, without the spaces at their ends.
            values = {part for app in wanted for value in app["environment"].values() for line in (value, *value.splitlines()) for part in (line, line.rstrip())}
            raise PorticoError(_without(str(error), {value for value in values if len(value) >= _SHORTEST_SECRET})) from None

    def _to_host(self, path: str, name: str) -> str:
        return self._transfer_file(path, self._connection._shell.join_path(self._remote_folder(), name))

    def _remote_folder(self) -> str:
        """Return the task's temporary folder on the host, which Ansible removes when the task is over."""
        if self._connection._shell.tmpdir is None:
            self._make_tmp_path()
        return self._connection._shell.tmpdir


def _reasons(order: dict[str, t.Any], environment: str, state: dict[str, t.Any]) -> list[str]:
    found = []
    if state["release"] != order["release"]:
        found.append("another release")
    if any(state["texts"].get(path) != text for path, text in order["files"].items()):
        found.append("other settings")
    if state["environment"] != digest(environment):
        found.append("another environment")
    if not state["environment_works"]:
        found.append("its environment lost its Python")
    if not state["runs"]:
        found.append("it does not run, or not from boot on")
    return found


def _diff(path: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": path, "after_header": path, "before": before, "after": after}


def _without(text: str, secrets: set[str]) -> str:
    """Blot out the values of an environment in what an app said last."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "********")
    return text
