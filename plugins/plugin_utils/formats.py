# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The forms that values of several lists have.

Each function takes a value and returns it in its final form, or raises ValueError with the end of a message
whose beginning is the value itself: "is not ... Write ...".
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import lru_cache
from urllib.parse import unquote

from ansible_collections.portico.web.plugins.module_utils.lexer import LONGEST_TOKEN, LexError, check
from ansible_collections.portico.web.plugins.plugin_utils.entries import shown

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LARGEST = 1 << 50
"""A petabyte: above all that anybody sends, and below what nginx can count."""


def printable(value: str) -> str:
    """Refuse control characters, which no name, path or URL has, and what is longer than any."""
    bad = None if value.isprintable() else next((each for each in value if unicodedata.category(each) in ("Cc", "Cs", "Zl", "Zp")), None)
    if bad is not None:
        raise ValueError(f"has a control character (U+{ord(bad):04X}) in it. Take it out.")
    if len(value.encode()) > LONGEST_TOKEN:
        raise ValueError(f"is longer than {LONGEST_TOKEN} bytes, which nginx does not take. Shorten it.")
    return value


def host_name(value: str, what: str = "") -> str:
    """Return a host name in small letters (RFC 1123, with the underscore that some names have)."""
    printable(value)
    name = value.lower()
    prefix = f"{what} " if what else ""
    if not name.isascii():
        try:
            written = name.encode("idna").decode("ascii")
        except UnicodeError:
            written = ""
        hint = f"Write {written}." if written else "Write its xn-- form."
        raise ValueError(f"{prefix}has letters that host names do not have on the wire. {hint}")
    if len(name) > 253 or not _HOST_NAME.fullmatch(name):
        raise ValueError(f"{prefix}is not a host name. Write letters, digits, hyphens and dots, without scheme, port or path.")
    return name


def file_name(value: str) -> str:
    """Return a name that is safe as a file's: no folder in it, no dot or hyphen at its beginning."""
    if not _FILE_NAME.fullmatch(value):
        raise ValueError("is not a name. Use letters, digits, dots, underscores and hyphens; begin with a letter or digit; at most 64.")
    return value


def absolute_path(value: str) -> str:
    """Return an absolute path on the host, without a slash at its end."""
    printable(value)
    if not value.startswith("/") or ".." in value.split("/") or "$" in value:
        raise ValueError("is not an absolute path. Begin with a slash, and use neither '..' nor '$'.")
    return "/" + value.strip("/")


def relative_path(value: str) -> str:
    """Return a path below a folder, without slashes at its ends."""
    printable(value)
    inside = value.strip("/")
    if value.startswith("/") or not inside or "$" in value or {"", ".", ".."} & set(inside.split("/")):
        raise ValueError("is not a path inside the source. Write it without a slash at its beginning, without '.', '..' and '$'.")
    return inside


def url_path(value: str) -> str:
    """Return the beginning of a URL's path, as a location of nginx has it."""
    printable(value)
    if not value.startswith("/") or "//" in value or {".", ".."} & set(value.split("/")) or re.search(r"[\s?#$\"\\]", value):
        raise ValueError("is not the path of a URL. Begin with a slash; no '..', '//', '?', '#', '$', quotes or spaces.")
    return value


def read_path(value: str) -> str:
    """Return the beginning of a path as it is read: so nginx compares it, and not as it comes percent-encoded."""
    decoded = unquote(value)
    if decoded != value:
        try:
            hint = f"Write it so: {shown(url_path(decoded))}."
        except ValueError:
            hint = "A path with what that stands for is not possible here. Choose another one."
        raise ValueError(f"is percent-encoded, and nginx compares paths as they are read. {hint}")
    return url_path(value)


@lru_cache(maxsize=1024)
def network(value: str) -> str:
    """Return an address or a network, as C(allow) and C(geo) of nginx take it."""
    try:
        found = ipaddress.ip_network(printable(value), strict=False)
        if "%" in value:
            raise ValueError("a zone means nothing to others")
    except ValueError as error:
        raise ValueError("is neither an address nor a network. Write one such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/32.") from error
    if "/" in value and ipaddress.ip_interface(value).ip != found.network_address:
        raise ValueError(f"is an address with the size of its network. Write {found} for the network, or leave the size away.")
    return str(found) if "/" in value else str(found.network_address)


def size(value: str) -> str:
    """Return a number of bytes as nginx writes it."""
    written = re.fullmatch(r"([0-9]{1,12})([kKmMgG]?)", value)
    if not written or int(written[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[written[2].lower()] > _LARGEST:
        raise ValueError("is not a size. Write a number, and k, m or g behind it for kilobytes, megabytes or gigabytes.")
    return value.lower()


def nginx_text(value: str) -> str:
    """Return whole directives of nginx: text that neither closes a block of ours nor leaves one of its own open."""
    bad = next((each for each in value if unicodedata.category(each) in ("Cc", "Cs") and each not in "\n\t"), None)
    if bad is not None:
        raise ValueError(f"has a control character (U+{ord(bad):04X}) in it. Take it out.")
    try:
        check(value)
    except LexError as error:
        line = value.split("\n")[error.line - 1].strip()
        raise ValueError(f"{error}. See its line {error.line}: {shown(line)}.") from error
    return value
