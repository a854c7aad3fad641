# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make the host's own tool: one file that Python runs, with those of our files in it that it needs.

It is the same to the byte wherever it is made of the same files (U(https://docs.python.org/3/library/zipapp.html) has
the format), so that a host is only sent another one when it is another one.
"""

from __future__ import annotations

import ast
import functools
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

# Isolated: neither the environment nor what somebody put into a home directory has a say in what root runs.
_SHEBANG = b"#!/usr/bin/python3 -I\n"
_PACKAGE = "ansible_collections.portico.web.plugins.module_utils"
_ENTRY = "keeper"
_FOLDER = Path(__file__).resolve().parent.parent / "module_utils"
_MAIN = f"""\
import sys

from {_PACKAGE} import {_ENTRY}

sys.exit({_ENTRY}.main())
"""
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The first date that a zip file knows."""


@functools.cache
def build() -> bytes:
    """Return the tool."""
    texts = {"__main__.py": _MAIN.encode()}
    packages = _PACKAGE.split(".")
    for depth in range(1, len(packages) + 1):
        # A host may have the collection installed. With these its own copy comes first.
        texts["/".join([*packages[:depth], "__init__.py"])] = b""
    for name in modules():
        texts["/".join([*packages, f"{name}.py"])] = _source(name)
    content = io.BytesIO(_SHEBANG)
    content.seek(len(_SHEBANG))
    with zipfile.ZipFile(content, "a", zipfile.ZIP_STORED) as archive:
        for path, text in sorted(texts.items()):
            entry = zipfile.ZipInfo(path, _LONG_AGO)
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, text)
    return content.getvalue()


def modules() -> list[str]:
    """Return the names of the files in module_utils that the tool is made of: one, and whatever it leads to."""
    found: set[str] = set()
    wanted = {_ENTRY}
    while wanted:
        found |= wanted
        wanted = {each for name in wanted for each in _imports(name)} - found
    return sorted(found)


def _imports(name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(_source(name))):
        if isinstance(node, ast.ImportFrom) and node.module == _PACKAGE:
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(f"{_PACKAGE}."):
            yield (node.module or "").removeprefix(f"{_PACKAGE}.")


def _source(name: str) -> bytes:
    return (_FOLDER / f"{name}.py").read_bytes()
