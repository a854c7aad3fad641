# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What visitors see when nginx itself has to say no: pages for errors, and for a site that is closed for a while."""

from __future__ import annotations

import posixpath
import re
import typing as t
from collections.abc import Mapping

from ansible_collections.portico.web.plugins.plugin_utils import formats, variables
from ansible_collections.portico.web.plugins.plugin_utils.entries import Entry, shown

STATUSES = (403, 404, 405, 413, 429, 500, 502, 503, 504)
"""The errors for which there are pages."""

_COME_AGAIN = 10
"""After so many seconds a browser looks again whether an app is back."""

_TEXTS: t.Final[Mapping[str, tuple[str, str, int | None]]] = {
    "403": ("This is not open to you", "You may not see this page.", None),
    "404": ("There is nothing here", "The page may have moved, or the address has a slip in it.", None),
    "405": ("That cannot be done here", "This page cannot be asked for in that way.", None),
    "413": ("That is too large", "What you have sent is larger than this site takes.", None),
    "429": ("That was too often", "Please wait a moment, and try again.", None),
    "500": ("Something is broken here", "The site could not answer. It is not your mistake.", None),
    "502": ("The application is not answering", "It may be back in a moment. This page looks again by itself.", _COME_AGAIN),
    "503": ("Too busy just now", "Please wait a moment, and try again.", _COME_AGAIN),
    "504": ("The application takes too long", "It may be busy. Please try again in a moment.", None),
    "closed-503": ("Closed for maintenance", "The site is being worked on, and will be back soon. This page looks again by itself.", 60),
}
"""Name -> title, text, and after how many seconds a browser asks again."""

_TYPES: t.Final = {".html": "text/html", ".htm": "text/html", ".json": "application/json", ".txt": "text/plain", ".xml": "application/xml"}
_LONGEST = 86_400
_LONGEST_OPEN = 1000
"""Bytes: it stands in a pattern, where signs have a backslash before them."""


def standard() -> dict[str, Entry]:
    """Return the pages that there are by themselves, name to what the template writes."""
    return {name: {"title": title, "text": text, "again": again} for name, (title, text, again) in _TEXTS.items()}


def error_pages(value: Mapping[t.Any, t.Any]) -> list[Entry]:
    """Return pages of a site's own: status, folder, name in it, and content type of each."""
    found = []
    for status, file in value.items():
        if not str(status).isascii() or not str(status).isdigit() or int(status) not in STATUSES:
            raise ValueError(f"has {shown(status)}, which is no error that nginx tells itself. Write one of {', '.join(map(str, STATUSES))}.")
        if not isinstance(file, str):
            raise ValueError(f"has {shown(file)}, which is not text. Write the path of a file on the host.")
        try:
            path = formats.absolute_path(file)
        except ValueError as error:
            raise ValueError(f"has {shown(file)}, which {error}") from error
        suffix = re.search(r"\.[a-z]+$", path)
        kind = _TYPES.get(suffix[0] if suffix else "", "text/html")
        found.append({"status": int(status), "folder": posixpath.dirname(path), "name": f"/{posixpath.basename(path)}", "content_type": f"{kind}; charset=utf-8"})
    return sorted(found, key=lambda page: page["status"])


def maintenance(value: Entry) -> Entry:
    """Return how a site is closed, as it was written."""
    if not 1 <= value["retry_after"] <= _LONGEST:
        raise ValueError(f"has a retry_after that is not possible. Write a number of seconds from 1 to {_LONGEST}.")
    if any(len(path.encode()) > _LONGEST_OPEN for path in value["open"]):
        raise ValueError(f"has a path in open that is longer than {_LONGEST_OPEN} bytes. Shorten it.")
    return dict(value)


def of_site(site: Entry) -> Entry:
    """Return what a site says of its pages, and of how it is closed, as the templates have it."""
    closed = site["maintenance"]
    if closed is None:
        return {"error_pages": site["error_pages"] or [], "maintenance": None}
    number = variables.number(site["name"])
    patterns = [f"~^0:{re.escape(path)}" for path in closed["open"]]
    return {"error_pages": site["error_pages"] or [], "maintenance": {**closed, "number": number, "patterns": patterns}}
