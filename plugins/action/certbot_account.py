# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Export an account of certbot to a file on the controller, by way of an answer that may be printed."""

from __future__ import annotations

import base64
import os
import secrets
import typing as t
from pathlib import Path

from ansible_collections.portico.web.plugins.module_utils import files
from ansible_collections.portico.web.plugins.modules.certbot_account import under
from ansible_collections.portico.web.plugins.plugin_utils import certificates, entries
from ansible_collections.portico.web.plugins.plugin_utils.action import PorticoAction
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError

_LONGEST_ACCOUNT = 65536


class ActionModule(PorticoAction):
    """One remote call."""

    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        options = entries.arguments("certbot_account", args)
        server = certificates.settings({"server": options["server"]}).server
        dest = Path(self._loader.path_dwim(options["dest"]))
        pad = secrets.token_bytes(_LONGEST_ACCOUNT)
        answer = self._ask("certbot_account", {"server": server, "dest": str(dest), "pad": base64.b64encode(pad).decode()}, task_vars)
        account = under(pad, base64.b64decode(answer["account"])).decode()
        changed = files.read(str(dest)) != account
        if changed and not self._task.check_mode:
            try:
                os.makedirs(dest.parent, mode=0o700, exist_ok=True)
                files.write(str(dest), account, 0o600)
            except OSError as error:
                raise PorticoError(f"{dest} cannot be written on the controller: {error.strerror}.") from error
        return {"changed": changed, "dest": str(dest)}
