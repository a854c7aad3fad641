# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Addresses of backends and of other sites, in the forms in which nginx takes them."""

from __future__ import annotations

import ipaddress
import re
import typing as t
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from ansible_collections.portico.web.plugins.plugin_utils import formats

_UNIX = "unix:"
_HTTP = ("http", "https")
NOT_HTTP = ("fastcgi", "grpc", "grpcs", "uwsgi", "suwsgi")
"""The schemes of backends that are spoken to by another protocol, and asked for no path."""


class Backend(t.NamedTuple):
    """What stands in a backend's URL."""

    scheme: str
    host: str
    """A host name or an address, without a port; empty for a unix socket."""
    path: str


def backend(value: str) -> str:
    """Return a URL that C(proxy_pass) takes as it stands, with its scheme in small letters."""
    scheme, _colons, rest = value.partition("://")
    scheme = scheme.lower()
    if scheme in _HTTP and rest.startswith(_UNIX):
        socket(_UNIX + rest.removeprefix(_UNIX).partition(":")[0])
        path = rest.removeprefix(_UNIX).partition(":")[2]
        if ":" in rest.removeprefix(_UNIX):
            _refuse_signs(path)
            formats.url_path(path)
        return f"{scheme}://{rest}"
    parts = _url(value, _HTTP)
    if re.search(r"[?#@]", value) or parts.netloc.endswith(":"):
        raise ValueError("has a query, a fragment or a user in it, or a colon without a port. Write http://HOST:PORT, with a path at most.")
    if parts.netloc.startswith("["):
        _ipv6(parts.netloc[1:].partition("]")[0])
    if parts.path:
        formats.url_path(parts.path)
    return f"{scheme}://{rest}"


def any_backend(value: str) -> str:
    """Return a URL of a backend that is spoken to by HTTP or by another protocol, with its scheme in small letters."""
    scheme, colons, rest = value.partition("://")
    scheme = scheme.lower()
    if scheme not in (*_HTTP, *NOT_HTTP) or not colons:
        _refuse_signs(value)
        raise ValueError(f"is not a URL that begins with {_either((*_HTTP, *NOT_HTTP))} and a host. Write it in full.")
    if scheme in _HTTP:
        return backend(value)
    try:
        return f"{scheme}://{server(rest)}"
    except ValueError as error:
        raise ValueError(f"has something behind {scheme}:// that {error} A path is possible with http:// and https:// alone.") from error


def asked_host(value: str) -> str:
    """Return a host name, with a port or without, as it is asked for in C(Host)."""
    name, colon, port = value.partition(":")
    if colon and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise ValueError("has something behind its colon that is no port. Write HOST or HOST:PORT.")
    return formats.host_name(name) + colon + port


def without_port(host: str | None) -> str | None:
    return host.partition(":")[0] if host else host


@lru_cache(maxsize=1024)
def parsed(value: str) -> Backend:
    """Return the parts of a URL that L(backend) or L(any_backend) has accepted."""
    scheme, _colons, rest = value.partition("://")
    if rest.startswith(_UNIX):
        return Backend(scheme, "", rest.removeprefix(_UNIX).partition(":")[2])
    parts = urlsplit(value)
    return Backend(scheme, parts.hostname or "", parts.path)


def _either(schemes: Sequence[str]) -> str:
    *first, last = (f"{scheme}://" for scheme in schemes)
    return f"{', '.join(first)} or {last}"


@lru_cache(maxsize=1024)
def is_address(host: str) -> bool:
    """Return whether a host is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def redirect(value: str) -> str:
    """Return a URL that visitors can be sent to."""
    _url(value, _HTTP)
    return value


def sign_in(value: str) -> str:
    """Return an address, or a path of the site's own, behind which another address can be put."""
    if re.search(r"[;#']", value):
        raise ValueError("has a ';', a '#' or a quote, behind which no address can be put. Percent-encode it.")
    if value.startswith("/"):
        _refuse_signs(value)
        return value
    return redirect(value)


def socket(value: str) -> str:
    """Return C(unix:) and the absolute path of a socket."""
    path = value.removeprefix(_UNIX)
    if value == path or formats.absolute_path(path) != path or re.search(r"[\s\"';{}\\:]", path):
        raise ValueError("is not the path of a unix socket. Write unix:/run/NAME.sock.")
    return value


def resolver(value: str) -> str:
    """Return the address of a server for names, with a port or without, as C(resolver) takes it."""
    formats.printable(value)
    address, port = value, ""
    written = re.fullmatch(r"(?:\[([^\]]*)\]|([^:]*))(?::([0-9]{1,5}))?", value)
    if written:
        address, port = written[1] or written[2] or "", written[3] or ""
    if not is_address(address) or "%" in address or (port and not 1 <= int(port) <= 65535):
        raise ValueError("is not the address of a server for names. Write one such as 192.0.2.53, 127.0.0.1:5353 or [2001:db8::53].")
    return (f"[{address}]" if ":" in address else address) + (f":{port}" if port else "")


def server(value: str) -> str:
    """Return the address of a server of an upstream: a host and a port, or a unix socket."""
    formats.printable(value)
    if value.startswith(_UNIX):
        return socket(value)
    written = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/]+):([0-9]{1,5})", value)
    if not written or not 1 <= int(written[2]) <= 65535:
        raise ValueError("is not an address. Write HOST:PORT, [IPv6 address]:PORT, or unix:/run/NAME.sock.")
    if value.startswith("["):
        _ipv6(written[1][1:-1])
        return value
    return f"{formats.host_name(written[1], what='has a host that')}:{written[2]}"


def _ipv6(value: str) -> None:
    try:
        ipaddress.IPv6Address(value)
    except ValueError as error:
        raise ValueError("has something in brackets that is no IPv6 address. Write [2001:db8::1]:8000.") from error


def _url(value: str, schemes: Sequence[str]) -> t.Any:
    _refuse_signs(value)
    try:
        parts = urlsplit(value)
        # Only reading the port tells whether it is a number below 65536.
        valid = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"is not a URL that begins with {_either(schemes)} and a host. Write it in full.")
    if parts.hostname and ":" not in parts.hostname:
        formats.host_name(parts.hostname, what="has a host that")
    return parts


def _refuse_signs(value: str) -> None:
    formats.printable(value)
    if "$" in value or re.search(r"[\s\"\\<>^`{|}]", value):
        raise ValueError("has a character that no URL has. Percent-encode it.")
