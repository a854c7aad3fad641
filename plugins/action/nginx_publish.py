# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Publish nginx's configuration: ask the host, render, compare, and send only what differs."""

from __future__ import annotations

import typing as t

from ansible_collections.portico.web.plugins.module_utils.generation import changed_files, differences, digest
from ansible_collections.portico.web.plugins.plugin_utils import apps, entries, render, sites
from ansible_collections.portico.web.plugins.plugin_utils.action import PorticoAction


class ActionModule(PorticoAction):
    """One remote call where nothing differs, two where something does."""

    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        options = entries.arguments("nginx_publish", args)
        known_apps = apps.normalise_apps(options["apps"])
        wanted_sites = sites.normalise_sites(options["sites"], known_apps)
        certificates = sorted({site["certificate"] for site in wanted_sites if site["tls"]})

        state = self._ask("nginx_generation", {"state": "asked"}, task_vars)
        files = render.configuration(wanted_sites, known_apps, _host(state), (options["http_port"], options["https_port"]))
        digests = {path: digest(text) for path, text in files.items()}
        if not differences(state, digests, certificates):
            return {"changed": False, "generation": state["generation"]}

        answer = self._ask("nginx_generation", {"state": "published", "files": files, "certificates": certificates}, task_vars)
        result = {"changed": answer["changed"], "generation": answer["generation"], "tested": answer["tested"]}
        result["files"] = changed_files(state["files"], digests)
        if self._task.diff:
            result["diff"] = [_diff(path, state["texts"], files) for path in result["files"]]
        return result


def _host(state: dict[str, t.Any]) -> render.Host:
    if not state["installed"]:
        return render.Host(ipv6=state["ipv6"])
    return render.Host(tuple(state["version"]), tuple(state["openssl"]), state["ipv6"])


def _diff(path: str, before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    return {"before_header": path, "after_header": path, "before": before.get(path, ""), "after": after.get(path, "")}
