# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a source asks of its environment: which file says so, and everything that this file says.

Formats: pip's requirements files (pip.pypa.io, Requirements File Format), pyproject.toml (PEP 621), uv.lock (docs.astral.sh/uv).
"""

from __future__ import annotations

import os
import re
import typing as t

LOCK = "uv.lock"
PROJECT = "pyproject.toml"
REQUIREMENTS = "requirements.txt"

# What an option of a requirements file names: a file that is read too, or something that cannot be known from the file alone.
_INCLUDE = re.compile(r"(?:-r|-c|--requirement|--constraint)(?:\s*=\s*|\s+|(?<=-[rc])(?=\S))(?P<path>\S.*)")
_EDITABLE = re.compile(r"(?:-e|--editable)[\s=]*(?P<what>\S.*)")
_LOCAL_OPTION = re.compile(r"(?:-f|--find-links)[\s=]*(?!https?:)\S")
_NAMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\s*(\[[^\]]*\])?\s*($|[=<>!~(@])")
_PATH_OF_LOCK = re.compile(r"^\s*source\s*=\s*\{\s*(editable|directory|path)\s*=|\{[^}]*\b(editable|directory|path)\s*=\s*\"", re.M)


class RequirementsError(Exception):
    """What is wrong with what a source asks for: a sentence for the person."""


class Wanted(t.NamedTuple):
    """What a source asks for."""

    kind: str
    """C(lock), C(project) or C(requirements)."""
    path: str
    """The file that says so, in the source."""
    texts: tuple[tuple[str, str], ...]
    """Every file that is part of it, with its text."""
    takes_source: bool
    """Whether something of the source itself is installed, so that the environment fits this source alone."""
    hashed: bool
    """Whether its packages are held to hashes."""


def read(source: str, named: str | None) -> Wanted:
    """Return what a source asks for.

    :param named: the file, if somebody named one: a requirements file, a pyproject.toml or a uv.lock.
    :raises RequirementsError: where there is none, or where it leads out of the source.
    """
    path = named or _find(source)
    text = _text(source, path, None)
    name = os.path.basename(path)
    if name == LOCK:
        project = os.path.join(os.path.dirname(path), PROJECT)
        return Wanted("lock", path, ((path, text), (project, _text(source, project, path))), _PATH_OF_LOCK.search(text) is not None, True)
    if name == PROJECT:
        return Wanted("project", path, ((path, text),), True, False)
    texts: dict[str, str] = {}
    takes_source = _collect(source, path, text, texts)
    return Wanted("requirements", path, tuple(texts.items()), takes_source, any(re.search(r"\s--hash[=\s]", each) for each in texts.values()))


def _find(source: str) -> str:
    if _is_file(source, LOCK) and _is_file(source, PROJECT):
        return LOCK
    if _is_file(source, REQUIREMENTS):
        return REQUIREMENTS
    if _is_file(source, PROJECT):
        # Many have one for the settings of their tools alone.
        if re.search(r"^\s*\[(project|build-system)\]", _text(source, PROJECT, None), re.M):
            return PROJECT
        raise RequirementsError(f"The source has a {PROJECT} without a [project], and no {REQUIREMENTS}. Set the key requirements.")
    known = sorted(each for each in os.listdir(source) if each.endswith((".txt", ".in", ".lock", ".toml")))
    there = f" It has {', '.join(known[:8])}." if known else ""
    raise RequirementsError(f"The source has no {LOCK} with a {PROJECT}, no {REQUIREMENTS} and no {PROJECT} at its top.{there} Set the key requirements.")


def _collect(source: str, path: str, text: str, texts: dict[str, str]) -> bool:
    """Gather a requirements file and all that it includes, and return whether one of them names something of the source."""
    texts[path] = text
    takes_source = False
    for number, line in _lines(text):
        include, editable = _INCLUDE.match(line), _EDITABLE.match(line)
        if include:
            other = include["path"].strip().strip("\"'")
            if "://" in other:
                raise RequirementsError(f"{path}, line {number}: {line} is read from elsewhere, and may be another one tomorrow. Put the file into the source.")
            inside = os.path.normpath(os.path.join(os.path.dirname(path), other))
            if inside not in texts:
                takes_source |= _collect(source, inside, _text(source, inside, f"{path}, line {number}"), texts)
        elif editable:
            if not re.match(r"(git|hg|svn|bzr)\+", editable["what"]):
                without = line.split(None, 1)[-1]
                raise RequirementsError(f"{path}, line {number}: {line} ties the environment to the folder of one release. Write {without} alone.")
        else:
            takes_source |= _is_local(line)
    return takes_source


def _is_local(line: str) -> bool:
    """Return whether a line names a path, and no package of an index and no URL."""
    if line.startswith("-"):
        return _LOCAL_OPTION.match(line) is not None
    what = re.split(r"\s*;|\s+--", line, maxsplit=1)[0]
    return "file:" in what or ("://" not in what and (not _NAMED.match(what) or what.endswith((".whl", ".zip", ".tar.gz", ".tgz"))))


def _lines(text: str) -> list[tuple[int, str]]:
    """Return the lines that say something, with their numbers: continued ones joined, without comments."""
    found, begun, first = [], "", 0
    for number, line in enumerate([*text.lstrip("\ufeff").splitlines(), ""], start=1):
        first = first if begun else number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            begun += line[:-1] + " "
            continue
        whole = re.sub(r"(^|\s+)#.*$", "", begun + line).strip()
        begun = ""
        if whole:
            found.append((first, whole))
    return found


def _is_file(source: str, path: str) -> bool:
    return os.path.isfile(os.path.join(source, path))


def _text(source: str, path: str, asked_by: str | None) -> str:
    """Return the text of a file that is in the source, wherever links lead."""
    by = f" {asked_by} asks for it." if asked_by else ""
    root, real = os.path.realpath(source), os.path.realpath(os.path.join(source, path))
    if os.path.commonpath((root, real)) != root:
        raise RequirementsError(f"{path} is not inside the source.{by}")
    if not os.path.isfile(real):
        near = sorted(each for each in os.listdir(os.path.dirname(real)) if each.endswith((".txt", ".in", ".lock", ".toml"))) if os.path.isdir(os.path.dirname(real)) else []
        there = f" There are {', '.join(near[:8])}." if near else ""
        raise RequirementsError(f"{path} is not a file in the source.{by}{there}")
    with open(real, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
