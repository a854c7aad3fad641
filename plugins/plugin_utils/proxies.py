# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The proxies in front of nginx that are believed what they say of a visitor: addresses, networks, and CDNs by their names."""

from __future__ import annotations

import ipaddress
import typing as t
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from ansible_collections.portico.web.plugins.plugin_utils import formats
from ansible_collections.portico.web.plugins.plugin_utils.entries import nearest, shown

CDNS: t.Final[Mapping[str, Sequence[str]]] = {
    # As https://www.cloudflare.com/ips/ had them in 2026.
    "cloudflare": (
        *("173.245.48.0/20", "103.21.244.0/22", "103.22.200.0/22", "103.31.4.0/22", "141.101.64.0/18", "108.162.192.0/18", "190.93.240.0/20"),
        *("188.114.96.0/20", "197.234.240.0/22", "198.41.128.0/17", "162.158.0.0/15", "104.16.0.0/13", "104.24.0.0/14", "172.64.0.0/13", "131.0.72.0/22"),
        *("2400:cb00::/32", "2606:4700::/32", "2803:f800::/32", "2405:b500::/32", "2405:8100::/32", "2a06:98c0::/29", "2c0f:f248::/32"),
    ),
    # As https://api.fastly.com/public-ip-list had them in 2026.
    "fastly": (
        *("23.235.32.0/20", "43.249.72.0/22", "103.244.50.0/24", "103.245.222.0/23", "103.245.224.0/24", "104.156.80.0/20", "140.248.64.0/18"),
        *("140.248.128.0/17", "146.75.0.0/17", "151.101.0.0/16", "157.52.64.0/18", "167.82.0.0/17", "167.82.128.0/20", "167.82.160.0/20"),
        *("167.82.224.0/20", "172.111.64.0/18", "185.31.16.0/22", "199.27.72.0/21", "199.232.0.0/16", "2a04:4e40::/32", "2a04:4e42::/32"),
    ),
}
"""The networks of which a CDN asks."""

TOLD: t.Final[Mapping[str, Markup]] = {
    "X-Real-IP": Markup("$remote_addr"),
    "X-Forwarded-For": Markup("$remote_addr"),
    "X-Forwarded-Proto": Markup("$portico_scheme"),
    "X-Request-ID": Markup("$portico_request_id"),
}
"""What a backend is told of the visitor, header to variable."""

TAKEN: t.Final = (
    *("X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Forwarded-Scheme", "X-Forwarded-Ssl", "X-Forwarded-Protocol"),
    *("X-Original-URL", "X-Rewrite-URL", "X-Host", "Forwarded"),
)
"""What no backend hears from a visitor, because some would believe it."""

SAID_BY_PROXIES: t.Final = ("CF-Connecting-IP", "True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "Client-IP", "Fastly-Client-IP")
"""Headers in which proxies name the visitor, besides those that nginx writes itself: no backend hears them from a visitor."""
_WRITTEN = ("x-forwarded-for", "x-real-ip")


def _told_header(trusted: str, is_read: bool) -> str | None:
    """Return the header in which backends hear the visitor's address besides those in which all do: that of the proxies, where it is read."""
    return trusted if is_read and trusted.lower() not in _WRITTEN else None


def told(trusted: str, is_read: bool) -> list[tuple[str, str]]:
    """Return all that a backend is told of the visitor, whatever it is asked: header to variable, or to nothing where it is taken out.

    :param trusted: the header in which proxies name the visitor.
    :param is_read: whether there are any that are trusted, and it is read.
    """
    own = _told_header(trusted, is_read)
    taken = (*TAKEN, *_taken_headers(trusted, is_read))
    return [*TOLD.items(), *((name, "") for name in taken), *([(own, Markup("$remote_addr"))] if own else [])]


def _taken_headers(trusted: str, is_read: bool) -> list[str]:
    """Return the headers that no backend hears from a visitor, and not from nginx either.

    :param trusted: the one in which proxies name the visitor.
    :param is_read: whether there are any that are trusted, and it is read.
    """
    told = (_told_header(trusted, is_read) or "").lower()
    return [name for name in {name.lower(): name for name in (*SAID_BY_PROXIES, trusted)}.values() if name.lower() not in (*_WRITTEN, told)]


DIRECTIVES: t.Final = frozenset({"real_ip_header", "real_ip_recursive"})
"""What nginx can be told once of what they say."""

_WIDEST = {4: 4, 6: 8}
"""Nobody has a larger network than this, in bits."""


def check(value: object) -> None:
    """Refuse what are no proxies.

    :raises ValueError: with the end of the message.
    """
    if not isinstance(value, list):
        raise ValueError("is no list. Write one of addresses, networks, and names of CDNs.")
    for each in value:
        if not isinstance(each, str):
            raise ValueError(f"has {shown(each)}, which is no text. Write it in quotes.")
        if each not in CDNS:
            _check_network(each)


def _check_network(written: str) -> None:
    near = nearest(written, CDNS)
    try:
        network = ipaddress.ip_network(formats.network(written))
    except ValueError as error:
        hint = f" Did you mean {near}?" if near else f" The CDNs that are known by name are {' and '.join(CDNS)}."
        raise ValueError(f"has {shown(written)}, which {error}{hint}") from error
    if network.prefixlen < _WIDEST[network.version]:
        raise ValueError(f"has {shown(written)}, with which every visitor could say who it is. Write the networks of your proxies.")


def networks(written: Sequence[str]) -> list[str]:
    """Return the networks of proxies, each once, in order."""
    return list(dict.fromkeys(network for each in written for network in CDNS.get(each, [each])))


def is_this_host(network: str) -> bool:
    """Return whether one of the addresses by which a host reaches itself is in a network."""
    within = ipaddress.ip_network(network)
    return any(ipaddress.ip_address(address) in within for address in ("127.0.0.1", "::1"))
