# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What has moved: single paths that lead elsewhere, a few in the list or thousands from a file."""

from __future__ import annotations

import posixpath
import re
import string
import typing as t
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import unquote, urlsplit, urlunsplit

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.module_utils.lexer import LONGEST_TOKEN
from ansible_collections.portico.web.plugins.plugin_utils import formats, urls, variables
from ansible_collections.portico.web.plugins.plugin_utils.entries import Entry, Mistake, shown

Moves = dict[str, str]
"""Path -> where it leads: a URL, or a path of the same site."""

_LONGEST = 900
"""Bytes of a path: what nginx's table of them has room for (map_hash_bucket_size in nginx.conf)."""
_SMALL = {ord(sign): sign.lower() for sign in string.ascii_uppercase}
_AS_IT_IS = string.ascii_letters + string.digits + "-._~/"
"""Signs of a path that nobody percent-encodes."""


class Move(t.NamedTuple):
    """One of them, as nginx is told of it."""

    path: str
    target: str
    is_here: bool
    """Whether the target is a path of the site itself."""
    keeps_query: bool


class _Table:
    def __init__(self) -> None:
        self.moves: Moves = {}
        self._seen: set[str] = set()

    def add(self, old: object, new: object) -> None:
        """Add one, in its final form.

        :raises ValueError: with the end of the message.
        """
        if not isinstance(old, str) or not isinstance(new, str):
            raise ValueError("which are not two texts. Write each in quotes.")
        path, target = _path(old), _target(new)
        if _folded(path) in self._seen:
            raise ValueError("whose path has been said before (capitals make no difference). Keep one.")
        self._seen.add(_folded(path))
        self.moves[path] = target

    def take(self, moves: Moves) -> None:
        """Begin with those that are in their final form already."""
        self.moves.update(moves)
        self._seen.update(map(_folded, moves))


def redirects(value: Mapping[t.Any, t.Any]) -> Moves:
    """Return what has moved, as the list says it."""
    table = _Table()
    for old, new in value.items():
        try:
            table.add(old, new)
        except ValueError as error:
            raise ValueError(f"has {shown(old)}: {shown(new)}, {error}") from error
    return table.moves


def of_site(site: Entry, read_text: Callable[[str], str], mistake: Mistake) -> Moves:
    """Return all that has moved, what is in a site's file included.

    :param site: complete.
    :param read_text: returns the text of a file on the controller; L(controller.reader) makes one.
    :raises PorticoError: naming the line.
    """
    name = site["redirects_file"]
    if name is None:
        _refuse_circles(site["redirects"] or {}, site, "redirects", mistake)
        return site["redirects"] or {}
    try:
        written = read_text(name).splitlines()
    except (OSError, ValueError) as error:
        why = (error.strerror or "it is no file") if isinstance(error, OSError) else str(error)
        raise mistake("redirects_file", name, f"cannot be read on the controller: {why}. Give the path of a file with a redirect a line, absolute or beside the playbook.") from error
    table = _Table()
    table.take(site["redirects"] or {})
    for number, line in enumerate(written, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            if len(words) != 2:
                raise ValueError("which is not a path and where it leads. Write the two with a blank between them, and blanks inside of them as %20.")
            table.add(*words)
        except ValueError as error:
            raise mistake("redirects_file", name, f"has in line {number} {shown(line.strip())}, {error}") from error
    _refuse_circles(table.moves, site, "redirects_file", mistake)
    return table.moves


def _refuse_circles(moves: Moves, site: Entry, key: str, mistake: Mistake) -> None:
    """Refuse what would lead a visitor round and round."""
    paths = {_folded(old): old for old in moves}
    leads = {_folded(old): _here(new, site, paths) for old, new in moves.items()}
    for start, old in paths.items():
        met, at = {start}, leads[start]
        while at in leads and at not in met:
            met.add(at)
            at = leads[at]
        if at == start:
            by = f" by way of {paths[leads[start]]}" if leads[start] != start else ""
            raise mistake(key, old, f"leads back to itself{by} (capitals make no difference). Take it out.")


def _here(target: str, site: Entry, moved: Mapping[str, str]) -> str | None:
    """Return the path at which a visitor who follows a target ends on the site itself, as nginx looks it up; None where it is elsewhere.

    :param moved: the paths that have moved, which is looked at before slashes are.
    """
    parts = urlsplit(target)
    if parts.hostname and parts.hostname not in site["server_names"]:
        return None
    path = unquote(parts.path or "/")
    path = posixpath.normpath("/" + path.lstrip("/")) + ("/" if path.endswith("/") and path.strip("/") else "")
    if _folded(path) not in moved and path not in unslashed(site):
        if site["trailing_slash"] == "remove":
            path = path.rstrip("/") or "/"
        elif site["trailing_slash"] == "add" and not path.endswith("/") and "." not in path.rpartition("/")[2]:
            path += "/"
    return _folded(path)


def unslashed(site: Entry) -> list[str]:
    """Return the paths of locations at which no slash is added or taken away: at which the other form is another path, or is led back by nginx itself."""
    adds = site["trailing_slash"] == "add"
    return [location["path"] for location in site["locations"] if (location["exact"] if adds else location["path"].endswith("/") and location["path"] != "/")]


def _folded(path: str) -> str:
    """Return a path as nginx looks it up: without regard to case, of ASCII alone."""
    return path.translate(_SMALL)


def variable(scope: str, site: Entry) -> str:
    """Return the variable that has where a path of a site leads."""
    return f"$portico_moved_{variables.number(scope, site['name'])}"


def file(scope: str, site: Entry) -> str:
    """Return the path of the table inside the generation."""
    return f"redirects/{scope}~{site['name']}.conf"


def slash(scope: str, site: Entry) -> Entry:
    """Return how a slash at the end of paths is added or taken away, as the http level has it.

    :returns: C(name) of the site; C(variable), which has where a path leads; C(adds); C(exempt), the patterns of paths that stay
        what they are.
    """
    return {"name": site["name"], "variable": f"$portico_slash_{variables.number(scope, 'slash', site['name'])}", "adds": site["trailing_slash"] == "add", "exempt": [_raw(path) for path in unslashed(site)]}


def _raw(path: str) -> str:
    """Return the pattern of a path as a visitor may write it."""
    return "".join(re.escape(sign) if sign in _AS_IT_IS else f"(?:{re.escape(sign)}|{_percent(sign)})" for sign in path)


def _percent(sign: str) -> str:
    return "".join(f"%(?i:{byte:02X})" for byte in sign.encode())


def listed(moves: Moves) -> list[Move]:
    """Return them as the template writes them."""
    return [Move(old, new, new.startswith("/"), not {"?", "#"} & set(new)) for old, new in sorted(moves.items())]


def _path(old: str) -> str:
    if not old.startswith("/") or "?" in old or "#" in old:
        raise ValueError("whose path is none. Begin with a slash, and leave queries away: they are passed on.")
    path = unquote(old)
    formats.printable(path)
    if "$" in path or "//" in path or {".", ".."} & set(path.split("/")) or "\ufffd" in path:
        raise ValueError("whose path nobody asks for. Take out '$', '//', '.' and '..'.")
    if path.startswith(layout.OWN_PATHS):
        raise ValueError("whose path is Portico's own. Take it out.")
    if len(path.encode()) > _LONGEST:
        raise ValueError(f"whose path is longer than {_LONGEST} bytes. Shorten it.")
    return path


def _target(new: str) -> str:
    if new.startswith("/") and not new.startswith("//"):
        formats.printable(new)
        if not new.isascii() or re.search(r"[\s$\"\\<>^`{|}]", new):
            raise ValueError("which leads to a path with a character that no URL has. Percent-encode it.")
        return new
    if len(new.encode()) > LONGEST_TOKEN // 2:
        raise ValueError("which leads to a URL that is too long for nginx. Shorten it.")
    urls.redirect(new)
    parts = urlsplit(new)
    return new if parts.path else urlunsplit(parts._replace(path="/"))
