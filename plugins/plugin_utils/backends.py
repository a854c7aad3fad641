# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a backend is spoken to: the host that it is asked for, and how it is verified over TLS."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.plugin_utils import urls
from ansible_collections.portico.web.plugins.plugin_utils.entries import Entry, Mistake

UNSAID: t.Final[Entry] = {"host": None, "verify": None, "ca": None, "certificate_name": None}


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
    parts, path = urls.parsed(target), location["path"]
    if parts.path and not location["exact"] and not (parts.path.endswith("/") and path.endswith("/")):
        why = f"has a path that takes the place of {path}, and without a slash at the end of both visitors could leave it. Let both end with one."
        raise mistake(f"{prefix}proxy", target, why)
    name = backend["certificate_name"] or urls.without_port(backend["host"]) or parts.host
    if parts.scheme == "https" and backend["verify"] and (not name or urls.is_address(name)):
        why = "has no host name, and nginx verifies certificates by name. Say in backend.certificate_name what its certificate is to be named (or verify: false)."
        raise mistake(f"{prefix}proxy", target, why)
    return {**spoken(parts.scheme, {**backend, "certificate_name": name}, backend["host"], parts.path, path), "is_shared": True}


def spoken(scheme: str, backend: Mapping[str, t.Any], host: str | None, below: str, path: str) -> Entry:
    """Return how a backend is spoken to, as the template writes it.

    :param below: the path of its URL, which stands in place of the location's.
    """
    verified = backend["ca"] or layout.TRUSTED_CAS
    name = backend["certificate_name"] or urls.without_port(host)
    origins = [f"http://{host}", f"https://{host}"]
    led_back = [(f"{origin}{below}", path) for origin in ["", *origins]] if below and below != path else []
    return {
        "scheme": scheme,
        "host": host,
        "led_back": [*led_back, *((f"{origin}/", "/") for origin in origins)] if host else [],
        # An address is no name that could be asked for (RFC 6066, section 3).
        "tls": {"name": None if urls.is_address(name or "") else name, "ca": verified if backend["verify"] else None} if scheme == "https" else None,
        "is_shared": False,
    }
