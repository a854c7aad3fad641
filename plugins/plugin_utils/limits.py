# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Limits: how often somebody may ask, said once and called by a name."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Sequence

from ansible_collections.portico.web.plugins.plugin_utils import entries, formats, variables
from ansible_collections.portico.web.plugins.plugin_utils.entries import HIDDEN, Entry, PorticoError, problem

_USUAL: t.Final[Entry] = {"burst": 10, "connections": None, "by": "address", "methods": None, "except": None, "dry_run": False}
BUILT_IN: t.Final[dict[str, Entry]] = {
    "login": {"name": "login", **_USUAL, "requests": "10/m", "burst": 5, "methods": ["POST"]},
    "api": {"name": "api", **_USUAL, "requests": "20/s", "burst": 40},
    "everything": {"name": "everything", **_USUAL, "requests": "100/s", "burst": 400, "connections": 200},
}
"""The limits that need not be in the list."""

_A_MINUTE = 60
_CONNECTIONS_ALONE = 5
"""After so many seconds somebody comes back who had too many connections."""


def normalise_limits(limits: object, variable: str = "nginx_limits") -> list[Entry]:
    """Return the limits complete and checked, in the words of their documentation.

    :raises PorticoError: at the first mistake.
    """
    complete = entries.normalise(variable, limits, entries.options("nginx_publish", "limits"), _FORMATS)
    for limit in complete:
        _check(variable, limit)
    return complete


def seconds(limits: Iterable[Entry]) -> int:
    """Return after how many seconds somebody who met one of several limits may try again."""
    return max(map(_seconds, limits), default=0)


def counted(scope: str, limit: Entry) -> Entry:
    """Return a limit as the http level has it.

    :returns: besides what is written: C(number), which tells its variables from those of others; C(key), the variable by which visitors are told apart; C(rate), as nginx writes it.
    """
    rate = "{}r/{}".format(*limit["requests"].split("/")) if limit["requests"] else None
    return {**limit, "number": variables.number(scope, limit["name"]), "except": list(dict.fromkeys(limit["except"] or [])), "methods": list(dict.fromkeys(limit["methods"] or [])), "key": _KEYS[limit["by"]], "rate": rate}


_KEYS: t.Final = {"address": "$portico_visitor", "site": "$server_name"}


def _seconds(limit: Entry) -> int:
    if not limit["requests"]:
        return _CONNECTIONS_ALONE
    count, unit = limit["requests"].split("/")
    return 1 if unit == "s" else -(-_A_MINUTE // int(count))


def _check(variable: str, limit: Entry) -> None:
    def mistake(key: str, value: object, why: str) -> PorticoError:
        return problem(variable, limit["name"], key, value, why)

    if limit["requests"] is None and limit["connections"] is None:
        raise mistake("requests or connections", HIDDEN, "is missing. Say with one of them, or both, what is too much.")
    for key, (least, most) in _NUMBERS.items():
        if limit[key] is not None and not least <= limit[key] <= most:
            raise mistake(key, limit[key], f"is not possible. Write a number from {least} to {most}.")
    for key in ("methods", "except"):
        if limit[key] == []:
            raise mistake(key, [], "is empty. Write at least one, or leave the key away.")


_NUMBERS: t.Final = {"burst": (0, 100_000), "connections": (1, 65_535)}


def _requests(value: str) -> str:
    written = re.fullmatch(r"([0-9]{1,5})/([sm])", value)
    if not written or int(written[1]) == 0:
        raise ValueError("is not a rate. Write requests by the second or the minute, such as 10/s or 5/m.")
    return f"{int(written[1])}/{written[2]}"


def _method(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z]{1,20}", value):
        raise ValueError("is not a method. Write one such as POST.")
    return value.upper()


def merged(*levels: Sequence[str] | None) -> list[str]:
    """Return the names of limits of a site and its location together; an empty list of the latter stands for none."""
    if levels and levels[-1] == []:
        return []
    return list(dict.fromkeys(name for level in levels for name in level or []))


_FORMATS: t.Final[dict[str, entries.Format]] = {
    "name": formats.file_name,
    "requests": _requests,
    "methods": _method,
    "except": formats.network,
}
