# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What all of Portico's action plugins share: one kind of error, and a question to the host."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase

from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError


class PorticoAction(ActionBase):
    """An action plugin whose subclass says in C(_act) what is to be done.

    C(_act) returns the task's result. A PorticoError that it raises becomes the task's failure, in its own words.
    """

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        try:
            result.update(self._act(self._task.args.copy(), task_vars or {}))
        except PorticoError as error:
            result.update(failed=True, msg=str(error))
        return result

    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        raise NotImplementedError

    def _ask(self, module: str, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Run one of the collection's modules on the host: one remote call.

        :param module: its short name, such as C(nginx_generation).
        :raises PorticoError: in the module's own words, when it fails.
        """
        answer = self._execute_module(module_name=f"portico.web.{module}", module_args=args, task_vars=task_vars)
        if answer.get("failed"):
            raise PorticoError(answer.get("msg") or f"portico.web.{module} failed and did not say why: {answer}")
        return answer
