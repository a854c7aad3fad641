# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Obtain certificates: check what is wanted on the controller, and let the host do it in one call."""

from __future__ import annotations

import typing as t
from dataclasses import asdict

from ansible_collections.portico.web.plugins.plugin_utils import certificates, entries
from ansible_collections.portico.web.plugins.plugin_utils.action import PorticoAction

_RESULT = ("changed", "due", "reasons", "obtained", "linked", "files", "failures", "diff")


class ActionModule(PorticoAction):
    """One remote call, whatever is to be done."""

    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        options = entries.arguments("certbot_certificate", args)
        wanted = certificates.normalise_certificates(options["certificates"])
        settings = certificates.settings(options["server"], options["email"], options["ca_bundle"])
        request = {"certificates": [{key: each[key] for key in ("name", "domains")} for each in wanted], "obtain": options["obtain"], **asdict(settings)}

        answer = self._ask("certbot_lineage", request, task_vars)
        result = {key: answer[key] for key in _RESULT if key in answer}
        if answer["failures"]:
            result.update(failed=True, msg="\n".join(answer["failures"]))
        return result
