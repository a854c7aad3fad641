# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Caches: which answers of backends nginx keeps, and for how long, said once and called by a name."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.plugin_utils import entries, formats, variables
from ansible_collections.portico.web.plugins.plugin_utils.entries import Entry, Mistake, did_you_mean, problem

_BACKENDS = ("app", "upstream", "proxy")

_USUAL: t.Final[Entry] = {"size": "512m", "keep": 86_400, "fresh": 0, "stale": True, "private_cookies": None}
BUILT_IN: t.Final[dict[str, Entry]] = {
    "none": {"name": "none", **_USUAL},
    "micro": {"name": "micro", **_USUAL, "size": "128m", "keep": 10, "fresh": 1},
}
"""The caches that need not be in the list; the first one keeps nothing."""

_PERSONAL = ("users", "clients", "ask")
"""What an access policy says where an answer may be for one visitor alone."""

_MISSING = 10
"""For so many seconds at the most it is fresh that there is nothing: somebody may just be about to put it there."""


def normalise_caches(caches: object, variable: str = "nginx_caches") -> list[Entry]:
    """Return the caches complete and checked, in the words of their documentation.

    :raises PorticoError: at the first mistake.
    """
    complete = entries.normalise(variable, caches, entries.options("nginx_publish", "caches"), _FORMATS)
    for cache in complete:
        _check(variable, cache)
    return complete


def can_keep(location: Entry) -> bool:
    """Return whether a location's answers can be kept: those of backends that are spoken to by HTTP."""
    return location["does"] in _BACKENDS and location["family"] == "proxy"


def of_level(level: Entry, known: Mapping[str, Entry], key: str, mistake: Mistake) -> Entry | None:
    """Return the cache that a site or a location names, if it does.

    :raises PorticoError: for a name that is in no list.
    """
    name = level["cache"]
    if name is None:
        return None
    if name not in known:
        raise mistake(key, name, f"is not a cache of nginx_caches. {did_you_mean(name, known)}")
    return known[name]


def of_location(location: Entry, of_its_site: Entry | None, known: Mapping[str, Entry], prefix: str, mistake: Mistake) -> Entry:
    """Return what a location's block says of its cache.

    :param location: complete but for that, with the policy that holds there.
    :param of_its_site: the cache of its site, or None.
    :returns: C(cache), what is written there, or None where its site's block has said it.
    :raises PorticoError: where nothing could be kept, or what is one visitor's own might be shown to others.
    """
    own = of_level(location, known, f"{prefix}cache", mistake) if prefix else None
    holds = of_its_site if own is None else own
    if holds is None or holds["name"] == "none":
        return {"cache": own}
    if not can_keep(location):
        if own is not None:
            raise mistake(f"{prefix}cache", own["name"], "is for answers of HTTP backends, and this is none. Take it out.")
        return {"cache": None}
    policy = location["policy"]
    personal = next((key for key in _PERSONAL if policy and policy[key]), None)
    if personal:
        why = f'would show what one visitor got to others: the access policy "{policy["name"]}" has {personal}. Say cache: none there, or let everybody in.'
        raise mistake(f"{prefix}cache", holds["name"], why)
    return {"cache": own}


def kept(scope: str, cache: Entry) -> Entry:
    """Return a cache as the http level has it.

    :returns: besides what is written: C(number), which tells its variables from those of others; C(folder); C(cookies), the
        patterns of those that make an answer private, or None where any does; C(missing), how long it is fresh that there is nothing.
    """
    names = dict.fromkeys(name.removesuffix("*") for name in cache["private_cookies"] or [])
    return {
        **cache,
        "number": variables.number(scope, "cache", cache["name"]),
        "folder": layout.cache(scope, cache["name"]),
        "cookies": None if cache["private_cookies"] is None else [*(f"~*{_anywhere(name)}" for name in names), *([_ENCODED] if names else [])],
        "missing": min(cache["fresh"], _MISSING),
    }


def _anywhere(name: str) -> str:
    """Return the pattern of a cookie's name wherever it stands in the header.

    Backends read cookies each in its own way, with blanks that are none and signs that stand for others: what might be one for
    any of them is private.
    """
    return "".join("[_. [+]" if sign in "_." else re.sub(r"[^A-Za-z0-9-]", lambda found: f"\\{found[0]}", sign) for sign in name)


def _check(variable: str, cache: Entry) -> None:
    def mistake(key: str, value: object, why: str) -> entries.PorticoError:
        return problem(variable, cache["name"], key, value, why)

    if cache["name"] == "none":
        raise mistake("name", "none", "is what a location says that keeps nothing. Choose another name.")
    for key, (least, most) in _NUMBERS.items():
        if not least <= cache[key] <= most:
            raise mistake(key, cache[key], f"is not possible. Write a number of seconds from {least} to {most}.")
    if cache["keep"] < cache["fresh"]:
        raise mistake("keep", cache["keep"], f"is less than its fresh ({cache['fresh']}), and nothing would be fresh for so long. Keep it as long at the least.")


_ENCODED = "~(^|[;,])[^=;,]*%"
"""A name with a sign that some backends decode."""

_NUMBERS: t.Final = {"keep": (1, 31_536_000), "fresh": (0, 31_536_000)}
_SMALLEST = 1 << 20


def _size(value: str) -> str:
    size = formats.size(value)
    number = int(size.rstrip("kmg")) << {"k": 10, "m": 20, "g": 30}.get(size[-1], 0)
    if number < _SMALLEST:
        raise ValueError("is too small to keep anything. Write a megabyte (1m) at the least.")
    return size


def _cookie(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9!#%&'+.^_`|~-]{1,100}\*?", value):
        raise ValueError("is not the name of a cookie. Write one such as sessionid, or the beginning of one with a * behind it.")
    return value


_FORMATS: t.Final[dict[str, entries.Format]] = {"name": formats.file_name, "size": _size, "private_cookies": _cookie}
