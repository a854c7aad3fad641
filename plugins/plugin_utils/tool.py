# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's own tool, portico-certificates: one file, made of the same Python that the modules are made of."""

from __future__ import annotations

import ast
import functools
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PACKAGE = "ansible_collections.portico.web.plugins.module_utils"
ENTRANCE = "keeper"

# Without the host's site-packages: a collection that is installed there must not be taken for the one in the file.
_SHEBANG = b"#!/usr/bin/python3 -IS\n"
_MAIN = f"""\
import sys

from {PACKAGE} import {ENTRANCE}

sys.exit({ENTRANCE}.main(sys.argv[1:]))
"""
_SOURCES = Path(__file__).parent.parent / "module_utils"
_NO_DATE = (1980, 1, 1, 0, 0, 0)


@functools.lru_cache(maxsize=None)
def build() -> bytes:
    """Return the tool as it lies on a host. The same sources make the same bytes."""
    folder = PurePosixPath(PACKAGE.replace(".", "/"))
    texts = {f"{folder}/{name}.py": _source(name).encode() for name in needed()}
    # What imports from an archive knows a package without an __init__ by its folder's own entry alone.
    texts.update({f"{each}/": b"" for each in (folder, *folder.parents) if each.name})
    texts["__main__.py"] = _MAIN.encode()
    archive = io.BytesIO()
    archive.write(_SHEBANG)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path, text in sorted(texts.items()):
            entry = zipfile.ZipInfo(path, _NO_DATE)
            entry.create_system = 3
            entry.external_attr = (0o40755 << 16 | 0x10) if path.endswith("/") else 0o100644 << 16
            file.writestr(entry, text)
    return archive.getvalue()


def needed() -> list[str]:
    """Return the names of the modules that the tool is made of: those it imports, anywhere in their source."""
    found, waiting = set(), [ENTRANCE]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imported(ast.parse(_source(name)))
    return sorted(found)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{PACKAGE}."):
            yield (node.module or "").removeprefix(f"{PACKAGE}.")


def _source(name: str) -> str:
    return (_SOURCES / f"{name}.py").read_text(encoding="utf-8")
