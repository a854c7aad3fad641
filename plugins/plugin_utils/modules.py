# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nginx's dynamic modules, by the names that Debian's packages give them (libnginx-mod-NAME)."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError, shown

_TOGETHER: t.Final[Mapping[str, Sequence[str]]] = {"brotli": ("http-brotli-filter", "http-brotli-static")}
"""What people call several of them."""
_PREFIX = "libnginx-mod-"


def check(value: object) -> None:
    """Refuse what are no names of modules.

    :raises ValueError: with the end of the message.
    """
    if not isinstance(value, list):
        raise ValueError("is no list. Write one of names of modules, such as brotli or http-geoip2.")
    for each in value:
        if not isinstance(each, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,60}", each):
            raise ValueError(f"has {shown(each)}, which is not the name of a module. Write what stands behind {_PREFIX} in the name of its package.")


def packages(names: Iterable[str]) -> list[str]:
    """Return the packages that have some modules, each once."""
    return list(dict.fromkeys(f"{_PREFIX}{module}" for name in names for module in _TOGETHER.get(name, [name])))


def loaded_by(installed: Iterable[str]) -> list[str]:
    """Return the modules that nginx will load when some packages are there."""
    return [f"ngx_{package.removeprefix(_PREFIX).replace('-', '_')}_module" for package in installed if package.startswith(_PREFIX)]


def refuse_unknown(names: Iterable[str], unknown: Iterable[str]) -> None:
    """Refuse modules of which the host's apt has no package.

    :param unknown: the packages that it does not know.
    :raises PorticoError: at the first.
    """
    for name in names:
        missing = [package for package in packages([name]) if package in set(unknown)]
        if missing:
            raise PorticoError(f"nginx_modules: {shown(name)} is in no package that this host's apt knows ({', '.join(missing)}). 'apt-cache search {_PREFIX}' names those that there are.")
