# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check every Portico list that a play brings to a host."""

from __future__ import annotations

import typing as t

from ansible_collections.portico.web.plugins.plugin_utils.action import PorticoAction
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError


class ActionModule(PorticoAction):
    """Runs on the controller alone."""

    _requires_connection = False

    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        if args:
            raise PorticoError(f"portico.web.check takes no options, but was given {', '.join(args)}.")
        return {"changed": False, "checked": self._check_lists(task_vars).names}
