# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Have an earlier release of an app answer again."""

from __future__ import annotations

import typing as t

from ansible_collections.portico.web.plugins.plugin_utils import entries
from ansible_collections.portico.web.plugins.plugin_utils.action import PorticoAction


class ActionModule(PorticoAction):
    """One remote call: the host knows its releases."""

    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        options = entries.arguments("gunicorn_rollback", args)
        app = options["name"]
        order = {"state": "rolled_back", "apps": [{"name": app, "wanted": options["release"]}], "holder": self._who(task_vars)}
        answer = self._ask("gunicorn_release", order, task_vars)
        told = answer["apps"][app]
        result = {key: told[key] for key in ("release", "revision", "bytes", "releases", "seconds", "waited_for")}
        result.update(app=app, changed=answer["changed"], replaced=told["before"], warnings=answer.get("warnings", []))
        if answer["changed"]:
            verb = "would be" if self._task.check_mode else "is"
            result["msg"] = f'Release {told["release"]} {verb} live. The next run of gunicorn_deploy deploys what the list says again: put the version that is to stay into it.'
        return result
