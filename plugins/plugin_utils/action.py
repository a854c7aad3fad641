# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What all of Portico's action plugins share: one kind of error, and a question to the host."""

from __future__ import annotations

import contextlib
import gc
import getpass
import itertools
import socket
import threading
import typing as t
from collections.abc import Callable

from ansible.plugins.action import ActionBase

from ansible_collections.portico.web.plugins.plugin_utils import controller, lists
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError


SECONDS_FOR_APT = 300
"""How long another one's use of apt is waited for."""

_TEXTS = frozenset({"str", "_AnsibleTaggedStr", "AnsibleUnicode"})
_LISTS = frozenset({"list", "_AnsibleTaggedList", "AnsibleSequence"})
_DICTS = frozenset({"dict", "_AnsibleTaggedDict", "AnsibleMapping"})
_OTHERS = frozenset({"bool", "int", "float", "NoneType", "_AnsibleTaggedInt", "_AnsibleTaggedFloat"})
"""What variables are made of, as Ansible's versions read it from YAML. In these there is a template or not; other types are Ansible's own business."""


Value = t.TypeVar("Value")


class Meanwhile(t.Generic[Value]):
    """Work that is done while a host is asked, and its result."""

    def __init__(self, work: Callable[[], Value]) -> None:
        self._work = work
        self._thread = threading.Thread(target=self._do, daemon=True)
        self._is_done = False
        self._value: Value
        self._error: BaseException | None = None

    def begin(self) -> None:
        """Begin with it, if that was not done."""
        if self._thread.ident is None:
            # Where there may be no more threads, it is done when its result is wanted.
            with contextlib.suppress(RuntimeError):
                self._thread.start()

    def result(self) -> Value:
        """Return the result as soon as it is there.

        :raises BaseException: what the work has raised.
        """
        if self._thread.ident is not None:
            self._thread.join()
        elif not self._is_done:
            self._do()
        if self._error:
            raise self._error
        return self._value

    def _do(self) -> None:
        try:
            self._value = self._work()
        except BaseException as error:
            # For who asks for the result.
            self._error = error
        self._is_done = True


class PorticoAction(ActionBase):
    """An action plugin whose subclass says in C(_act) what is to be done.

    C(_act) returns the task's result. A PorticoError that it raises becomes the task's failure, in its own words.
    """

    TRANSFERS_FILES = False
    _requires_connection = True
    _meanwhile: Meanwhile[t.Any] | None = None
    """What is done beside the first question to the host."""

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result = super().run(tmp, task_vars)
        try:
            with _uncollected():
                result.update(self._act(self._task.args.copy(), task_vars or {}))
        except PorticoError as error:
            result.update(failed=True, msg=str(error), **({"changed": True} if error.changed else {}))
        return result

    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        raise NotImplementedError

    def _check_lists(self, task_vars: dict[str, t.Any]) -> lists.Checked:
        """Check every Portico list that the play brings.

        :raises PorticoError: at the first mistake.
        """
        lists.refuse_near_misses(task_vars)
        return lists.check(Templated(task_vars, self._templar), self._loader.path_dwim, controller.reader(self._loader))

    def _ask(self, module: str, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        """Run one of the collection's modules on the host: one remote call.

        :param module: its short name, such as C(nginx_generation).
        :raises PorticoError: in the module's own words, when it fails.
        """
        return self._run_module(f"portico.web.{module}", args, task_vars)

    def _low_level_execute_command(self, *args: t.Any, **kwargs: t.Any) -> dict[str, t.Any]:
        """Send the host a command, as ever. From here on there is nothing to do but to wait for it."""
        if self._meanwhile:
            self._meanwhile.begin()
        return super()._low_level_execute_command(*args, **kwargs)

    def _run_module(self, module: str, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        answer = self._execute_module(module_name=module, module_args=args, task_vars=task_vars)
        if answer.get("failed"):
            error = PorticoError(answer.get("msg") or f"{module} failed and did not say why: {answer}")
            error.changed = bool(answer.get("changed"))
            raise error
        return answer

    def _install(self, names: list[str], task_vars: dict[str, t.Any]) -> None:
        """Install packages, with the index of packages as it is now. On a host that has just been made, apt is busy for a while."""
        order = {"name": names, "update_cache": True, "install_recommends": False, "lock_timeout": SECONDS_FOR_APT}
        self._run_module("ansible.builtin.apt", order, task_vars)

    def _who(self, task_vars: dict[str, t.Any]) -> str:
        """Return who runs this, in words for somebody who has to wait for it."""
        return f'{getpass.getuser()}@{socket.gethostname()}, play "{task_vars.get("ansible_play_name", "")}"'


class Templated(dict):
    """The play's variables; those that are looked at are templated at that moment and kept, and no others."""

    def __init__(self, variables: dict[str, t.Any], templar: t.Any) -> None:
        super().__init__(variables)
        self._templar = templar
        self._templated: dict[str, t.Any] = {}

    def __getitem__(self, name: str) -> t.Any:
        if name not in self._templated:
            try:
                self._templated[name] = self._complete(super().__getitem__(name))
            except KeyError:
                raise
            except Exception as error:
                # Whatever a template can raise: the name of the variable is what the person needs beside it.
                raise PorticoError(f"{name} cannot be templated: {error}") from error
        return self._templated[name]

    def get(self, name: str, default: t.Any = None) -> t.Any:
        return self[name] if name in self else default

    def _complete(self, value: t.Any) -> t.Any:
        """Template a value. Ansible would copy a thousand entries that have no template in them; it is asked for those that have."""
        if is_plain(value):
            return value
        if type(value).__name__ not in _LISTS:
            return self._templar.template(value)
        parts = itertools.groupby(value, is_plain)
        return [each for plain, found in parts for each in (found if plain else self._templar.template(list(found)))]


def is_plain(value: t.Any) -> bool:
    """Return whether a variable is what Ansible would make of it, because nothing in it is a template."""
    kind = type(value).__name__
    if kind in _TEXTS:
        return not (("{" in value and any(begin in value for begin in ("{{", "{%", "{#"))) or value.startswith("#jinja2:"))
    if kind in _DICTS:
        return all(map(is_plain, value.values()))
    return all(map(is_plain, value)) if kind in _LISTS else kind in _OTHERS


@contextlib.contextmanager
def _uncollected() -> t.Iterator[None]:
    """Let Python look for no circles of objects: again and again it would go through all that the run has in memory, for a task that ends soon.

    Nor does it go through that when the task is over, for the worker's last moments.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.freeze()
            gc.enable()


def diffs(answer: dict[str, t.Any]) -> list[dict[str, str]]:
    """Return a diff for each file that differs, from the texts before and after that a host sent."""
    before, after = answer.get("before", {}), answer.get("after", {})
    return [{"before_header": path, "after_header": path, "before": before.get(path, ""), "after": after.get(path, "")} for path in answer.get("files", [])]
