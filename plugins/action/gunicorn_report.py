# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tell a program what became of a deploy, on all the hosts of a play."""

from __future__ import annotations

import json
import os
import typing as t

from ansible.utils.display import Display

from ansible_collections.portico.web.plugins.module_utils import files
from ansible_collections.portico.web.plugins.plugin_utils import entries, report
from ansible_collections.portico.web.plugins.plugin_utils.action import PorticoAction
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError


class ActionModule(PorticoAction):
    """Runs on the controller alone."""

    _requires_connection = False

    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        options = entries.arguments("gunicorn_report", args)
        results = {host: task_vars["hostvars"][host].get(options["result"]) for host in task_vars["ansible_play_hosts_all"]}
        told = report.report(options["name"], results)
        line = json.dumps(told)
        if options["path"] is None:
            Display().display(line)
        else:
            # It comes from a command line, and is meant from where that was given.
            where = os.path.abspath(options["path"])
            try:
                files.write(where, line + "\n")
            except OSError as error:
                raise PorticoError(f"The report cannot be written to {where}: {error.strerror}.") from error
        return {"changed": False, "report": told}
