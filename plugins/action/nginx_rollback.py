# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make a scope's sites what they were in a kept generation."""

from __future__ import annotations

import typing as t

from ansible_collections.portico.web.plugins.plugin_utils import entries
from ansible_collections.portico.web.plugins.plugin_utils.action import PorticoAction, diffs


class ActionModule(PorticoAction):
    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        order = {"state": "restored", "holder": self._who(task_vars), **entries.arguments("nginx_rollback", args)}
        answer = self._ask("nginx_generation", order, task_vars)
        result = {key: answer[key] for key in ("changed", "generation", "restored", "tested", "files", "waited_for") if key in answer}
        result["history"] = self._ask("nginx_generation", {"state": "history"}, task_vars)["history"]
        if answer.get("sandbox"):
            result["warnings"] = [answer["sandbox"]]
        if self._task.diff and answer["changed"]:
            result["diff"] = diffs(answer)
        return result
