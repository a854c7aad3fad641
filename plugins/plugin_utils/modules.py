# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nginx's dynamic modules, by the names that Debian's packages give them (libnginx-mod-NAME), or its vendor's (nginx-module-NAME)."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.portico.web.plugins.module_utils import vendors
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
    debians = [f"ngx_{package.removeprefix(_PREFIX).replace('-', '_')}_module" for package in installed if package.startswith(_PREFIX)]
    return debians + [module for package in installed for module in vendors.modules_of(package)]


def files(names: Iterable[str], loadable: Mapping[str, Sequence[str]], loaded: Iterable[str]) -> list[str]:
    """Return the files of modules that nginx is told to load, because their packages do not do it.

    :param loadable: package to files, as L(vendors.loadable) returns them.
    :param loaded: the modules that somebody else has nginx load.
    """
    there = set(loaded)
    found = [path for package in vendors.renamed(packages(names)) for path in loadable.get(package, [])]
    return [path for path in found if name_of(path) not in there]


def name_of(path: str) -> str:
    """Return the name of the module that is in a file."""
    return path.rpartition("/")[2].removesuffix(".so")


def refuse_unknown(names: Iterable[str], unknown: Iterable[str], is_vendors: bool = False) -> None:
    """Refuse modules of which the host's apt has no package.

    :param unknown: the packages that it does not know.
    :param is_vendors: whether packages are called as nginx's vendor calls them.
    :raises PorticoError: at the first.
    """
    for name in names:
        wanted = vendors.renamed(packages([name])) if is_vendors else packages([name])
        missing = [package for package in wanted if package in set(unknown)]
        if missing:
            raise PorticoError(f"nginx_modules: {shown(name)} is in no package that this host's apt knows ({', '.join(missing)}). 'apt-cache search {vendors.PREFIX if is_vendors else _PREFIX}' names those that there are.")
