# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What sites call by a name: upstreams, access policies, limits and caches, each a list of its own."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Mapping

from ansible_collections.portico.web.plugins.plugin_utils import access, caches, limits, upstreams
from ansible_collections.portico.web.plugins.plugin_utils.entries import Entry

Named = Mapping[str, Mapping[str, Entry]]
"""An option of C(nginx_publish) that is such a list -> its entries, name to entry, those that are there by themselves among them."""

LISTS: t.Final[Mapping[str, Callable[[object], list[Entry]]]] = {
    "upstreams": upstreams.normalise_upstreams,
    "access": access.normalise_access,
    "limits": limits.normalise_limits,
    "caches": caches.normalise_caches,
}
"""The options that are such lists; the variable of the play begins with C(nginx_)."""

_BUILT_IN: t.Final[Mapping[str, Mapping[str, Entry]]] = {"access": access.BUILT_IN, "limits": limits.BUILT_IN, "caches": caches.BUILT_IN}
"""Option to the entries that need not be in its list."""


def normalise(given: Mapping[str, object]) -> dict[str, dict[str, Entry]]:
    """Return the lists complete and checked.

    :param given: option to list; one that is not there has nothing but what is there by itself.
    :raises PorticoError: at the first mistake.
    """
    return {key: {**_BUILT_IN.get(key, {}), **{entry["name"]: entry for entry in check(given.get(key, []))}} for key, check in LISTS.items()}
