# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Obtain certificates: check what is wanted on the controller, and let the host do it in one call."""

from __future__ import annotations

import base64
import json
import typing as t

from ansible_collections.portico.web.plugins.plugin_utils import certificates, controller, entries, own_certificates, tool
from ansible_collections.portico.web.plugins.plugin_utils.action import PorticoAction

_RESULT = ("changed", "due", "reasons", "obtained", "linked", "removed", "files", "failures", "warnings", "diff")
_SECRET = ("eab", "account", "dns")


class ActionModule(PorticoAction):
    """One remote call, whatever is to be done, but for a host that lacks packages."""

    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        options = entries.arguments("certbot_certificate", args, secret=_SECRET)
        if options["check_lists"]:
            self._check_lists(task_vars)
        settings = certificates.settings(options)
        wanted = certificates.normalise_certificates(options["certificates"])
        contents, warnings = self._contents(wanted)
        request = {
            "certificates": certificates.host_entries(wanted, settings),
            # Nothing where there is nothing: Ansible strikes what is secret from the answer, "null" too.
            **{key: json.dumps(value) for key, value in (("contents", contents), ("eab", settings.eab), ("account", settings.account)) if value},
            "obtain": options["obtain"],
            "settings": {key: value for key, value in (("metrics", settings.metrics), ("alarm_command", settings.alarm_command)) if value},
            "packages": settings.packages,
            "requirements": settings.requirements,
            "credentials": settings.credentials,
            "tool": base64.b64encode(tool.build()).decode(),
            **{key: getattr(settings, key) for key in ("scope", "removed", "email", "ca_bundle", "preflight")},
        }
        answer = self._ask("certbot_lineage", request, task_vars)
        missing = answer["missing"]
        if missing and not self._task.check_mode:
            self._install(missing, task_vars)
            answer = self._ask("certbot_lineage", request, task_vars)
        if "failures" not in answer:
            raise entries.PorticoError(f"apt has installed {', '.join(missing)}, and the host still has not {', '.join(answer['missing'])}.")
        result = {key: answer[key] for key in _RESULT if key in answer}
        result["warnings"] = [*warnings, *result.get("warnings", [])]
        if missing:
            result.update(packages=missing, changed=True)
        if answer["failures"]:
            result.update(failed=True, msg="\n".join(answer["failures"]))
        return result

    def _contents(self, wanted: list[dict[str, t.Any]]) -> tuple[dict[str, dict[str, str]], list[str]]:
        """Return the certificates that the play brings itself, and what is to be said about them."""
        contents, warnings, read_text = {}, [], controller.reader(self._loader)
        for certificate in wanted:
            if certificate["issuer"] == "own":
                loaded = own_certificates.load(certificate, read_text)
                contents[certificate["name"]] = {"fullchain": loaded.fullchain, "key": loaded.key}
                warnings += loaded.warnings
        return contents, warnings
