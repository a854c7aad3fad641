# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The list of streams: whole connections of TCP, and datagrams of UDP, that nginx passes on without looking into them."""

from __future__ import annotations

import ipaddress
import typing as t
from collections.abc import Iterable, Mapping, Sequence

from ansible_collections.portico.web.plugins.module_utils.generation import at_one_place
from ansible_collections.portico.web.plugins.plugin_utils import access, backends, entries, formats, urls
from ansible_collections.portico.web.plugins.plugin_utils.entries import HIDDEN, Entry, Mistake, PorticoError, did_you_mean, problem
from ansible_collections.portico.web.plugins.plugin_utils.named import Named

FOLDER: t.Final = "streams/"
"""Where their files are in a generation."""
PACKAGES: t.Final = ("libnginx-mod-stream",)
"""What nginx passes them on with."""

_OF_ADDRESSES = ("allow", "deny")


def normalise_streams(streams: object, sites: Sequence[Mapping[str, t.Any]] | None, named: Named | None, variable: str = "nginx_streams") -> list[Entry]:
    """Return the streams complete and checked.

    :param sites: the complete sites, with whose certificates streams may be served; None where they are not known and not asked about.
    :param named: what streams call by a name, as L(named.normalise) returns it; None alike.
    :returns: for each stream what is documented, and C(rules), what its policy says of addresses; C(pool), its upstream, or None;
        C(spoken), how servers over TLS are verified, or None.
    :raises PorticoError: at the first mistake.
    """
    complete = entries.normalise(variable, streams, entries.options("nginx_publish", "streams"), _FORMATS)
    found = [_stream(variable, stream, sites, named) for stream in complete]
    _refuse_shared(variable, found)
    return found


def refuse_ports_of_sites(streams: Iterable[Entry], theirs: Mapping[str, Mapping[str, Sequence[t.Any]]], settings: Mapping[str, t.Any], variable: str = "nginx_streams") -> None:
    """Refuse streams at a port at which sites are, and sites at a port at which others have streams.

    :param theirs: scope to what L(places) returned of its streams.
    :param settings: the complete settings of nginx that there is one of.
    :raises PorticoError: at the first.
    """
    taken = {("tcp", int(settings[key])): f"nginx_{key}" for key in ("http_port", "https_port")}
    if settings["http3"]:
        taken["udp", int(settings["https_port"])] = "nginx_http3"
    for stream in streams:
        owner = taken.get((stream["protocol"], stream["port"]))
        if owner:
            raise problem(variable, stream["name"], "port", stream["port"], f"is where the sites are ({owner}). Choose another one.")
    for scope, there in theirs.items():
        for name, (protocol, port, _address) in there.items():
            if (protocol, port) in taken:
                raise PorticoError(f'{taken[protocol, port]}: the stream "{name}" of the scope "{scope}" is at port {port} on this host already. Choose another one, or take it out there.')


def places(streams: Iterable[Entry]) -> dict[str, list[t.Any]]:
    """Return where streams are, as a manifest has it: name to protocol, port, and address or None."""
    return {stream["name"]: [stream["protocol"], stream["port"], stream["address"]] for stream in streams}


def refuse_those_of_others(streams: Iterable[Entry], theirs: Mapping[str, Mapping[str, Sequence[t.Any]]], variable: str = "nginx_streams") -> None:
    """Refuse streams whose names or ports other scopes of the host have.

    :param theirs: scope to what L(places) returned of its streams.
    :raises PorticoError: at the first.
    """
    for name, place in places(streams).items():
        for scope, there in theirs.items():
            for other, their_place in there.items():
                if other.lower() == name.lower():
                    raise problem(variable, name, "name", name, f'is a stream of the scope "{scope}" on this host. Choose another name.')
                if at_one_place(place, their_place):
                    raise problem(variable, name, "port", place[1], f'is where the stream "{other}" of the scope "{scope}" is on this host. Choose another one.')


def _stream(variable: str, stream: Entry, sites: Sequence[Mapping[str, t.Any]] | None, named: Named | None) -> Entry:
    def mistake(key: str, value: object, why: str) -> PorticoError:
        return problem(variable, stream["name"], key, value, why)

    given = [key for key in ("proxy", "upstream") if stream[key] is not None]
    if len(given) != 1:
        raise mistake("proxy or upstream", HIDDEN, "is missing. Say with one of them where it leads." if not given else "are given together. Keep one.")
    for key, (least, most) in _NUMBERS.items():
        if stream[key] is not None and not least <= stream[key] <= most:
            raise mistake(key, stream[key], f"is not possible. Write a number from {least} to {most}.")
    is_udp = stream["protocol"] == "udp"
    if is_udp and stream["certificate"] is not None:
        raise mistake("certificate", stream["certificate"], "is for TLS, which nginx speaks over TCP alone. Take it out.")
    if is_udp and stream["send_proxy_protocol"]:
        raise mistake("send_proxy_protocol", True, "is for connections: a datagram would begin with what no server reads there. Take it out.")
    if not is_udp and stream["responses"] is not None:
        raise mistake("responses", stream["responses"], "is for datagrams (protocol: udp). Take it out.")
    if sites is not None and stream["certificate"] is not None:
        known = sorted({site["certificate"] for site in sites if site["tls"]})
        if stream["certificate"] not in known:
            raise mistake("certificate", stream["certificate"], f"is the certificate of no site, and a site is where its names are proved. {did_you_mean(stream['certificate'], known)}")
    timeout = stream["timeout"] or _TIMEOUTS[stream["protocol"]]
    found: Entry = {**stream, "timeout": timeout, "rules": [], "pool": None, "spoken": None}
    if named is None:
        return found
    if stream["access"] is not None:
        found["rules"] = access.rules(_policy(stream["access"], named, mistake), None)
    if stream["upstream"] is not None:
        found["pool"] = _pool(stream, named, mistake)
        if found["pool"]["tls"]:
            found["spoken"] = backends.spoken("https", found["pool"], found["pool"]["host"], "", "")
    return found


def _policy(name: str, named: Named, mistake: Mistake) -> Entry:
    if name not in named["access"]:
        raise mistake("access", name, f"is not an access policy of nginx_access. {did_you_mean(name, named['access'])}")
    policy = named["access"][name]
    other = next((key for key in ("users", "clients", "ask") if policy[key]), None)
    if other:
        raise mistake("access", name, f"asks for {other}, and of a stream nginx knows the address alone. Name a policy of {' and '.join(_OF_ADDRESSES)}.")
    return policy


def _pool(stream: Entry, named: Named, mistake: Mistake) -> Entry:
    name = stream["upstream"]
    if name not in named["upstreams"]:
        raise mistake("upstream", name, f"is not an upstream of nginx_upstreams. {did_you_mean(name, named['upstreams'])}")
    pool = named["upstreams"][name]
    if pool["balance"] == "uri":
        raise mistake("upstream", name, 'has the balance "uri", and a stream has none. Give it one with another.')
    if pool["protocol"] != "http":
        raise mistake("upstream", name, f"has the protocol {pool['protocol']}, into which nothing looks here. Give it one without.")
    if pool["tls"] and stream["protocol"] == "udp":
        raise mistake("upstream", name, "is spoken to over TLS, which nginx speaks over TCP alone. Give it one without.")
    return pool


def _refuse_shared(variable: str, streams: Sequence[Entry]) -> None:
    seen: dict[str, list[t.Any]] = {}
    for name, place in places(streams).items():
        for other, there in seen.items():
            if other.lower() == name.lower():
                raise problem(variable, name, "name", name, f'is "{other}" to nginx. Choose another name.')
            if at_one_place(place, there):
                raise problem(variable, name, "port", place[1], f'is where the stream "{other}" is. Choose another one, or give each an address of its own.')
        seen[name] = place


def _address(value: str) -> str:
    if not urls.is_address(formats.printable(value)) or "%" in value:
        raise ValueError("is not an address of the host. Write one such as 192.0.2.7 or 2001:db8::7, or leave it away for all.")
    return str(ipaddress.ip_address(value))


_TIMEOUTS: t.Final = {"tcp": 600, "udp": 30}
_NUMBERS: t.Final = {"port": (1, 65_535), "timeout": (1, 86_400), "responses": (0, 1000), "connections": (1, 65_535)}
_FORMATS: t.Final[dict[str, entries.Format]] = {
    "name": formats.file_name,
    "address": _address,
    "proxy": urls.server,
    "certificate": formats.file_name,
}
