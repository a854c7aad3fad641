"""Steps of an app on a host that is this machine: what only root on a host can do is noted and left out."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from ansible_collections.portico.web.plugins.module_utils.steps import Steps


class Module:
    """As much of AnsibleModule as steps need. It notes what was run, and with which variables."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.given: list[dict[str, str]] = []

    def get_bin_path(self, name: str) -> str | None:
        return shutil.which(name)

    def run_command(self, command: Sequence[str], cwd: str | None = None, data: str | None = None, environ_update: Mapping[str, str] | None = None, expand_user_and_vars: bool = True) -> tuple[int, str, str]:
        assert not expand_user_and_vars, command
        command, variables = list(command), dict(environ_update or {})
        self.ran.append(command)
        if command[0] in ("systemctl", "chown"):
            return 0, "", ""
        if command[0] == "systemd-run":
            at = command.index("--")
            properties = [each.split("=", 2)[1:] for each in command[:at] if each.startswith("--property=")]
            told = {name: value for name, value in properties}
            assert os.stat(told["EnvironmentFile"]).st_mode & 0o777 == 0o600
            with open(told["EnvironmentFile"], encoding="utf-8") as file:
                for name, quoted in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"\n', file.read(), re.S):
                    variables[name] = re.sub(r'\\(["\\$`])', r"\1", quoted)
            command, cwd = command[at + 1 :], told["WorkingDirectory"]
        self.given.append(variables)
        done = subprocess.run(command, cwd=cwd, input=data, env={**os.environ, **variables}, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    def lines(self) -> list[str]:
        return [" ".join(command) for command in self.ran]


def steps(serves: bool = False) -> tuple[Steps, Module]:
    module = Module()
    return Steps(module, "shop", lambda: serves), module
