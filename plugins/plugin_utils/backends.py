# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a backend is spoken to: the protocol, the host that it is asked for, and how it is verified over TLS."""

from __future__ import annotations

import posixpath
import re
import typing as t
from collections.abc import Iterable, Mapping

from markupsafe import Markup

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.plugin_utils import urls
from ansible_collections.portico.web.plugins.plugin_utils.entries import Entry, Mistake


class Protocol(t.NamedTuple):
    """A protocol as nginx speaks it."""

    family: str
    """What its directives begin with."""
    name: str
    """What people call it."""
    is_tls: bool = False
    pass_scheme: bool = True
    """Whether what is passed to is a URL, and not an address alone."""


PROTOCOLS: t.Final[Mapping[str, Protocol]] = {
    "http": Protocol("proxy", "HTTP"),
    "https": Protocol("proxy", "HTTP", is_tls=True),
    "fastcgi": Protocol("fastcgi", "FastCGI", pass_scheme=False),
    "grpc": Protocol("grpc", "gRPC"),
    "grpcs": Protocol("grpc", "gRPC", is_tls=True),
    "uwsgi": Protocol("uwsgi", "uwsgi"),
    "suwsgi": Protocol("uwsgi", "uwsgi", is_tls=True),
}
"""Scheme of a URL to protocol."""

_SCHEMES: t.Final = {(protocol.name.lower(), protocol.is_tls): scheme for scheme, protocol in PROTOCOLS.items()}

WITH_PARAMS: t.Final = ("fastcgi", "uwsgi")
"""The families in which an application is told of a request in variables, and not in headers."""

UNSAID: t.Final[Entry] = {"host": None, "verify": None, "ca": None, "certificate_name": None, "script": None, "resolve": None}


def scheme(upstream: Mapping[str, t.Any]) -> str:
    """Return the scheme in which a URL would say how an upstream is spoken to."""
    return _SCHEMES[upstream["protocol"], upstream["tls"]]


def said(of_site: Entry | None, of_location: Entry | None, prefix: str, mistake: Mistake) -> Entry:
    """Return what a site and its location say of a backend, the latter first."""
    found = dict(UNSAID)
    for level in (of_site, of_location):
        given = {key: value for key, value in (level or {}).items() if value is not None}
        if given.get("verify") is False:
            if "ca" in given:
                raise mistake(f"{prefix}backend.ca", given["ca"], "has no meaning with verify: false. Take one of them out.")
            found["ca"] = None
        found.update(given)
    return {**found, "verify": found["verify"] is not False}


def proxied(target: str, backend: Entry, location: Entry, prefix: str, mistake: Mistake) -> Entry:
    """Return how the backend at a URL is spoken to, as the template writes it.

    :raises PorticoError: where visitors could leave a path, or nobody could say whether it is the right backend.
    """
    parts, path = urls.parsed(target), location["path"]
    if parts.path and not location["exact"] and not (parts.path.endswith("/") and path.endswith("/")):
        why = f"has a path that takes the place of {path}, and without a slash at the end of both visitors could leave it. Let both end with one."
        raise mistake(f"{prefix}proxy", target, why)
    protocol = PROTOCOLS[parts.scheme]
    # What a site says holds where it can.
    said_here = (location["backend"] or UNSAID) if prefix else backend
    if said_here["script"] and protocol.family != "fastcgi":
        raise mistake(f"{prefix}backend.script", backend["script"], f"is for FastCGI, and {parts.scheme}:// is {protocol.name}. Take it out.")
    name = backend["certificate_name"] or urls.without_port(backend["host"]) or parts.host
    if protocol.is_tls and backend["verify"] and (not name or urls.is_address(name)):
        why = "has no host name, and nginx verifies certificates by name. Say in backend.certificate_name what its certificate is to be named (or verify: false)."
        raise mistake(f"{prefix}proxy", target, why)
    is_named = bool(parts.host) and not urls.is_address(parts.host)
    if said_here["resolve"] and not is_named:
        raise mistake(f"{prefix}backend.resolve", True, f"is for names, and {target} has none. Take it out.")
    is_looked_up = bool(backend["resolve"]) and is_named
    if is_looked_up and parts.path:
        raise mistake(f"{prefix}proxy", target, "has a path, which nginx cannot put in another's place where it looks the host up (backend.resolve). Take one of them out.")
    found = spoken(parts.scheme, {**backend, "certificate_name": name}, backend["host"], parts.path, path)
    address = target if protocol.pass_scheme else target.partition("://")[2]
    if is_looked_up:
        # nginx looks among what it knows first, and where the name is written elsewhere it knows it since its start. With a dot at
        # its end the same name is another one there.
        address = re.sub(r"^((?:\w+://)?[^:/]+)", r"\1.", address)
    return {**found, "address": address, "is_shared": True, "is_looked_up": is_looked_up}


def spoken(scheme: str, backend: Mapping[str, t.Any], host: str | None, below: str, path: str) -> Entry:
    """Return how a backend is spoken to, as the template writes it.

    :param below: the path of its URL, which stands in place of the location's.
    """
    protocol = PROTOCOLS[scheme]
    verified = backend["ca"] or layout.TRUSTED_CAS
    name = backend["certificate_name"] or urls.without_port(host)
    origins = [f"http://{host}", f"https://{host}"]
    led_back = [(f"{origin}{below}", path) for origin in ["", *origins]] if below and below != path else []
    script = backend["script"]
    visited = Markup("$host$portico_port")
    return {
        "family": protocol.family,
        "asked": written(protocol.family, [("Host", host or visited), ("X-Forwarded-Host", visited if host else "")]),
        "before": f"{scheme}://" if protocol.pass_scheme else "",
        "host": host,
        "led_back": [*led_back, *((f"{origin}/", "/") for origin in origins)] if host else [],
        # An address is no name that could be asked for (RFC 6066, section 3).
        "tls": {"name": None if urls.is_address(name or "") else name, "ca": verified if backend["verify"] else None} if protocol.is_tls else None,
        "script": {"file": script, "name": f"/{posixpath.basename(script)}", "folder": posixpath.dirname(script)} if script else None,
        "is_shared": False,
        "is_looked_up": False,
    }


def written(family: str, headers: Iterable[tuple[str, t.Any]]) -> list[tuple[str, str, t.Any]]:
    """Return headers as a backend is told of them: the directive, its name for the header (RFC 3875, section 4.1.18), and the value."""
    if family in WITH_PARAMS:
        return [(f"{family}_param", param(name), value) for name, value in headers]
    return [(f"{family}_set_header", name, value) for name, value in headers]


def param(header: str) -> str:
    """Return the variable in which an application finds a header (RFC 3875, section 4.1.18)."""
    return f"HTTP_{header.upper().replace('-', '_')}"
