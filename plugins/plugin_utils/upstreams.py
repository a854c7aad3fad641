# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The list of upstreams: backends of several servers, which sites call by a name."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible_collections.portico.web.plugins.plugin_utils import backends, entries, formats, urls
from ansible_collections.portico.web.plugins.plugin_utils.entries import Entry, problem

_KEPT_OPEN = 16
"""So many idle connections each worker keeps open, where nobody says how many."""
_PINS = ("address", "uri")
"""The ways of balancing in which a visitor has a server of its own: nginx knows no backup there."""


def normalise_upstreams(upstreams: object, variable: str = "nginx_upstreams") -> list[Entry]:
    """Return the upstreams complete and checked, in the words of their documentation.

    :raises PorticoError: at the first mistake.
    """
    complete = entries.normalise(variable, upstreams, entries.options("nginx_publish", "upstreams"), _FORMATS)
    seen: dict[str, str] = {}
    for upstream in complete:
        _check(variable, upstream)
        if upstream["keepalive"] is None:
            upstream["keepalive"] = 0 if upstream["protocol"] in backends.WITH_PARAMS else _KEPT_OPEN
        for server in upstream["servers"]:
            server["is_looked_up"] = upstream["resolve"] and is_named(server)
        # nginx compares them without regard to case.
        twin = seen.setdefault(upstream["name"].lower(), upstream["name"])
        if twin != upstream["name"]:
            raise problem(variable, upstream["name"], "name", upstream["name"], f'is "{twin}" to nginx. Choose another name.')
    return complete


def _check(variable: str, upstream: Entry) -> None:
    def mistake(key: str, value: object, why: str) -> entries.PorticoError:
        return problem(variable, upstream["name"], key, value, why)

    if upstream["protocol"] == "fastcgi" and upstream["tls"]:
        raise mistake("tls", True, "is not possible with FastCGI, which nginx speaks in plain text alone. Take it out.")
    if upstream["script"] and upstream["protocol"] != "fastcgi":
        raise mistake("script", upstream["script"], f"is for FastCGI, and the protocol is {upstream['protocol']}. Take one of them out.")
    if upstream["keepalive"] and upstream["protocol"] in backends.WITH_PARAMS:
        raise mistake("keepalive", upstream["keepalive"], f"is not possible with {upstream['protocol']}, whose servers give a worker to each connection. Take it out.")
    named = "certificate_name" if upstream["certificate_name"] else "host"
    if upstream["tls"] and upstream["verify"] and urls.is_address(urls.without_port(upstream[named]) or ""):
        raise mistake(named, upstream[named], "is an address, and nginx verifies certificates by name. Say in certificate_name what they are to be named (or verify: false).")
    if upstream["ca"] and not upstream["verify"]:
        raise mistake("ca", upstream["ca"], "has no meaning with verify: false. Take one of them out.")
    servers = upstream["servers"]
    if not servers:
        raise mistake("servers", servers, "is empty. Write at least one server.")
    if upstream["resolve"] and not any(map(is_named, servers)):
        raise mistake("resolve", True, "is for names, and its servers have none. Take it out.")
    addresses = [server["address"] for server in servers]
    twins = [address for at, address in enumerate(addresses) if address in addresses[:at]]
    if twins:
        raise mistake("servers", twins[0], "stands there twice. Write each server once; a weight gives it more.")
    if all(server["backup"] or server["down"] for server in servers):
        raise mistake("servers", entries.HIDDEN, "has only servers that are backup or down. Leave one that is asked.")
    for at, server in enumerate(servers):
        for key, (least, most) in _LIMITS.items():
            if not least <= server[key] <= most:
                raise mistake(f"servers[{at}].{key}", server[key], f"is not possible. Write a number from {least} to {most}.")
        if server["backup"] and upstream["balance"] in (*_PINS, "random"):
            raise mistake(f"servers[{at}].backup", True, f'is not possible with the balance "{upstream["balance"]}", which nginx does without backups. Take one of them out.')
    for key, (least, most) in (("keepalive", (0, 10_000)), ("tries", (1, 100))):
        if upstream[key] is not None and not least <= upstream[key] <= most:
            raise mistake(key, upstream[key], f"is not possible. Write a number from {least} to {most}.")
    if upstream["tls"] and upstream["verify"] and not (upstream["certificate_name"] or upstream["host"]):
        raise mistake(
            "certificate_name", entries.HIDDEN, "is missing. With tls the servers' certificates are verified: say which name they are to have (or host; or verify: false)."
        )


def is_named(server: Mapping[str, t.Any]) -> bool:
    """Return whether a server has a name, and no address."""
    host = server["address"].rpartition(":")[0].strip("[]")
    return not server["address"].startswith("unix:") and not urls.is_address(host)


_LIMITS: t.Final = {"weight": (1, 1000), "max_fails": (0, 1000), "fail_timeout": (1, 86_400), "max_connections": (0, 1_000_000)}

_FORMATS: t.Final[dict[str, entries.Format]] = {
    "name": formats.file_name,
    "servers.address": urls.server,
    "host": urls.asked_host,
    "ca": formats.absolute_path,
    "certificate_name": formats.host_name,
    "script": formats.absolute_path,
}
