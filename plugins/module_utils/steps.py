# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is done to an app on a host, step by step: each has a name, and one that fails says what it said last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ansible.module_utils.basic import AnsibleModule

LINES = 25
"""How many of the last lines of a step that failed are shown."""


class StepError(Exception):
    """What went wrong, in words for the person."""


class Steps:
    """The steps of one app."""

    def __init__(self, module: AnsibleModule, app: str, meanwhile: Callable[[], str]) -> None:
        """Begin.

        :param meanwhile: says what visitors meet, whatever becomes of these steps.
        """
        self._module, self._app, self._meanwhile = module, app, meanwhile

    def run(self, command: Sequence[str], cwd: str | None = None, may_be_missing: bool = False, data: str | None = None, environment: Mapping[str, str] | None = None) -> tuple[int, str, str]:
        """Run a command, and return its exit status and what it said on both channels.

        :param may_be_missing: whether a program that is not installed is an answer (127) and no failure.
        :param data: what it reads.
        :param environment: variables that it gets beside the usual ones; secrets, too, which no command line may have.
        """
        if may_be_missing and self._module.get_bin_path(command[0]) is None:
            return 127, "", f"{command[0]} is not installed"
        # Nobody is there to answer a question. A word stays as it is: Ansible would put root's home and environment into it.
        return self._module.run_command(
            list(command), cwd=cwd, data=data, expand_user_and_vars=False, environ_update={"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8", **(environment or {})}
        )

    def step(self, name: str, command: Sequence[str], cwd: str | None = None, data: str | None = None, environment: Mapping[str, str] | None = None) -> str:
        """Run a command that must succeed, and return what it printed.

        :raises StepError: naming the app, the step, and what the command said last.
        """
        rc, out, err = self.run(command, cwd=cwd, data=data, environment=environment)
        if rc != 0:
            raise self.error(name, f"{out}\n{err}")
        return out

    def error(self, name: str, said: str, meanwhile: str | None = None) -> StepError:
        """Return the failure of a step, with the last lines of what was said.

        :param meanwhile: what visitors meet, where this step knows better.
        """
        last = "\n".join(said.strip().splitlines()[-LINES:])
        return StepError(f'The app "{self._app}" failed at {name}; {meanwhile or self._meanwhile()}. It said:\n{last or "nothing"}')
