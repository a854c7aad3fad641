# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is otherwise in nginx's own package than in the distribution's.

nginx.org makes one package, C(nginx). Debian and Ubuntu have two: the program, and C(nginx-common) with all that is in /etc/nginx.
"""

from __future__ import annotations

import glob
import os
import re
import typing as t
from collections.abc import Iterable, Mapping

COMMON: t.Final = "nginx-common"
"""The package that the distribution's nginx has beside it, and the vendor's takes off."""
DEFAULT_SITE: t.Final = "/etc/nginx/conf.d/default.conf"
SET_ASIDE: t.Final = DEFAULT_SITE + ".distrib"
LOG_FORMAT: t.Final = "main"
"""What its nginx.conf calls a form of logs, which files in conf.d may name."""

_DEBIANS: t.Final = "libnginx-mod-"
PREFIX: t.Final = "nginx-module-"
_TOGETHER: t.Final[Mapping[str, str]] = {"http-brotli-filter": "brotli", "http-brotli-static": "brotli"}
"""What are two packages of Debian's and one of these."""
_BUILT_IN: t.Final = (f"{_DEBIANS}stream",)
_LISTS = "/var/lib/dpkg/info"


def renamed(names: Iterable[str]) -> list[str]:
    """Return what packages are called here, which have names of Debian's; those of which nginx has everything in it are none."""
    return list(dict.fromkeys(_renamed(name) for name in names if name not in _BUILT_IN))


def loadable() -> dict[str, list[str]]:
    """Return what nginx can load: the installed packages of modules, each with its files. They load nothing of themselves.

    Beside each there is one for a debugging nginx, which this one does not take.
    """
    found = {}
    for path in sorted(glob.glob(f"{_LISTS}/{PREFIX}*.list")):
        with open(path, encoding="utf-8") as file:
            paths = [line for line in file.read().splitlines() if line.endswith(".so") and not line.endswith("-debug.so") and os.path.isfile(line)]
        if paths:
            found[re.sub(r":[a-z0-9]+$", "", os.path.basename(path).removesuffix(".list"))] = paths
    return found


def modules_of(package: str) -> list[str]:
    """Return what the modules of a package are called that is not there yet, where its name tells it and somebody asks: of brotli."""
    return ["ngx_http_brotli_filter_module", "ngx_http_brotli_static_module"] if package == f"{PREFIX}brotli" else []


def _renamed(name: str) -> str:
    if not name.startswith(_DEBIANS):
        return name
    module = name.removeprefix(_DEBIANS)
    return f"{PREFIX}{_TOGETHER.get(module, module)}"
