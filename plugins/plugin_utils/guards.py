# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands between visitors and what a site does: access policies, limits and caches, at the level where nginx is told of them.

The server block has those of its site, so that what stands in an C(extra_config) has them too; a location has those that differ.
"""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

from ansible_collections.portico.web.plugins.module_utils.lexer import statements
from ansible_collections.portico.web.plugins.plugin_utils import access, backends, caches, limits
from ansible_collections.portico.web.plugins.plugin_utils.entries import HIDDEN, Entry, Mistake, did_you_mean
from ansible_collections.portico.web.plugins.plugin_utils.named import Named

KEYS = ("access", "limits", "cache")
"""What a site says for all of its locations, and each of them for itself."""

_BACKENDS = ("app", "upstream", "proxy")
_ANSWERED_BY_NGINX = ("redirect", "answer")
"""What nginx answers before it asks who may."""

_UNLIMITED: t.Final[Entry] = {"limits": None, "wait": None}
NONE: t.Final[Entry] = {"access": None, "rules": [], "cache": None, "pages": False, "is_server": True, "family": "proxy", **_UNLIMITED}
"""Of a server block that lets everybody in, as often as they like."""


def of_site(site: Entry, named: Named, mistake: Mistake) -> Entry:
    """Return what a site's server block says of who gets in and how often.

    :returns: C(access), the policy that holds, or None; C(rules), what it says of addresses; C(limits), those that count, or None; C(cache), the one that keeps answers, or None.
    :raises PorticoError: for a name that is in no list.
    """
    _refuse_without_effect(site, site, "", mistake)
    policy = _policy(site, named, "", mistake)
    holds = None if access.is_open(policy) else policy
    cache = caches.of_level(site, named["caches"], "cache", mistake)
    return {"access": holds, "rules": access.rules(holds, None), "cache": None if cache and cache["name"] == "none" else cache, "pages": False, "is_server": True, "family": "proxy", **(_limits([site["limits"]], named, "limits", mistake) if site["limits"] else _UNLIMITED)}


def of_location(location: Entry, site: Entry, of_its_site: Entry, named: Named, prefix: str, mistake: Mistake) -> Entry:
    """Return what a location's block says of who gets in and how often: nothing where its site's block has said it.

    :param of_its_site: what L(of_site) has returned.
    :returns: C(access) and C(limits) to be written here, or None; C(rules) of the former; C(pages), whether all error
        pages are said again; C(policy), the policy that holds here, or None.
    """
    if prefix:
        _refuse_without_effect(location, site, prefix, mistake)
    policy = _policy(location, named, prefix, mistake)
    inherits = policy is None or (of_its_site["access"] is None and access.is_open(policy))
    counted = _UNLIMITED
    if location["limits"] is not None and (location["limits"] or of_its_site["limits"]):
        counted = _limits([site["limits"], location["limits"]], named, f"{prefix}limits", mistake)
    holds = of_its_site["access"] if policy is None else policy
    written = None if inherits else policy
    # One page of a location's own takes the place of all of its server's: where visitors are sent to sign in, or are not any more.
    own_pages = written is not None and any(policy and policy["ask"] and policy["ask"]["sign_in"] for policy in (written, of_its_site["access"]))
    return {"access": written, "rules": access.rules(written, of_its_site["access"]), "pages": own_pages, **counted, "policy": None if access.is_open(holds) else holds}


def _is_guarded(location: Entry, of_its_site: Entry) -> bool:
    """Return whether an answer of nginx's own has to wait until it is known who asks, and how often."""
    policy = location["policy"]
    counted = location["limits"] if location["limits"] is not None else of_its_site["limits"]
    return location["does"] in _ANSWERED_BY_NGINX and bool(counted or (policy and any(policy[key] for key in ("allow", "deny", "users", "ask"))))


def over_all(site: Entry, of_its_site: Entry, locations: Sequence[Entry], mistake: Mistake) -> Entry:
    """Return what the server block needs for the policies of all its locations.

    :returns: C(clients), the certificates of visitors that are asked for, or None; C(verifies), whether the server block itself
        refuses who has none; C(asks), the policies that ask another server.
    :raises PorticoError: where nginx could not keep to what is said.
    """
    policies = [each for each in [of_its_site["access"], *(location["access"] for location in locations)] if each]
    wanted = {policy["name"]: policy["clients"] for policy in policies if policy["clients"]}
    if len({str(each) for each in wanted.values()}) > 1:
        raise mistake("access", " and ".join(wanted), "ask for certificates of different CAs, and a site can ask for those of one list. Let one policy do, or make two sites.")
    if wanted and not site["tls"]:
        raise mistake("access", next(iter(wanted)), "asks for client certificates, which there are over TLS alone. Take tls: false out.")
    verifies = bool(of_its_site["access"] and of_its_site["access"]["clients"]) and all(location["access"] is None for location in locations)
    asks = list({policy["name"]: policy for policy in policies if policy["ask"]}.values())
    _refuse_what_would_be_open(site, locations, bool(wanted) and not verifies, any(policy["ask"]["headers"] for policy in asks), mistake)
    return {
        "clients": next(iter(wanted.values()), None),
        "verifies": verifies,
        "asks": asks,
    }


def _refuse_what_would_be_open(site: Entry, locations: Sequence[Entry], some_verify: bool, tells: bool, mistake: Mistake) -> None:
    """Refuse locations in texts of somebody's own to which what is asked of visitors would not reach."""
    if some_verify and _has_locations(site["extra_config"]):
        why = "has a location, and nginx would ask nobody for a certificate there, because another location lets visitors in without. Write it in locations."
        raise mistake("extra_config", HIDDEN, why)
    if tells and _passes_on(site["extra_config"]):
        why = "leads to a backend, which would believe what visitors say of themselves, as if it came from who is asked. Write it in locations."
        raise mistake("extra_config", HIDDEN, why)
    if _has_patterns(site["extra_config"]) and any(location["path"] == "/" and not location["exact"] and _keeps_out(location) for location in locations):
        why = "has a location with a regular expression, which nginx takes before /, so that the access and uploads of / would not hold there. Say access for the whole site, or write it in locations."
        raise mistake("extra_config", HIDDEN, why)
    for location in locations:
        if tells and _passes_on(location["extra_config"], 1 if location["does"] in _BACKENDS else 0):
            why = f"leads to a backend inside of {location['path']}, which would believe what visitors say of themselves, as if it came from who is asked. Write it in locations."
            raise mistake("locations.extra_config", HIDDEN, why)
        if some_verify and location["policy"] and location["policy"]["clients"] and _has_locations(location["extra_config"]):
            why = f"has a location inside of {location['path']}, and nginx would ask nobody for a certificate there. Write it in locations."
            raise mistake("locations.extra_config", HIDDEN, why)


def _has_locations(text: str | None) -> bool:
    """Return whether a text has a location, or includes a file that may have one."""
    return bool({"location", "include"} & {words[0] for depth, words, _line in statements(text or "") if depth == 0})


def _has_patterns(text: str | None) -> bool:
    """Return whether a text has a location whose path is a regular expression."""
    return any(depth == 0 and words[0] == "location" and words[1].startswith("~") for depth, words, _line in statements(text or ""))


def _keeps_out(location: Entry) -> bool:
    """Return whether a location has a policy of its own that lets not everybody in, or files of which none may act."""
    return location["uploads"] or not access.is_open(location["access"])


def _passes_on(text: str | None, depth: int = 0) -> bool:
    """Return whether a text leads to a backend at a depth or below it, or includes a file that may."""
    return any(at >= depth and (words[0].endswith("_pass") or words[0] == "include") for at, words, _line in statements(text or ""))


def of_all(locations: Sequence[Entry], of_its_site: Entry, over_all: Entry) -> list[Entry]:
    """Return the locations with what depends on all of them, and on their server block.

    :param of_its_site: what L(of_site) has returned.
    :param over_all: what L(over_all) has returned.
    :returns: each with C(number), C(told), C(guarded), C(verifies) and C(is_first), whether it comes before regular expressions.
    """
    return [
        {
            **location,
            "number": number,
            "told": backends.written(location["family"], told(location["policy"], over_all["asks"])) if location["does"] in _BACKENDS else [],
            "guarded": _is_guarded(location, of_its_site),
            "verifies": not over_all["verifies"] and bool(location["policy"] and location["policy"]["clients"]),
            "is_first": location["path"] != "/" and (_keeps_out(location) or bool(location["limits"])),
        }
        for number, location in enumerate(locations, start=1)
    ]


def told(policy: Entry | None, asks: Sequence[Entry]) -> list[tuple[str, str]]:
    """Return the headers that a backend gets from who was asked, and not from its visitor: name to a variable, or to nothing.

    :param asks: all policies of the site that ask another server.
    """
    heard = {header.lower() for header in (policy["ask"]["headers"] or [])} if policy and policy["ask"] else set()
    names = {header.lower(): header for each in asks for header in each["ask"]["headers"] or []}
    found = [(header, access.variable_of(header) if key in heard else '""') for key, header in names.items()]
    if policy and policy["users"] and not policy["any"]:
        # It was for nginx. An app that knows Basic itself would take it for one of its own, and refuse it.
        found.append(("Authorization", '""'))
    return found


def _refuse_without_effect(level: Entry, site: Entry, prefix: str, mistake: Mistake) -> None:
    given = next((key for key in KEYS if level[key] is not None), None)
    if given and site["template"] is not None:
        raise mistake(f"{prefix}{given}", level[given], "has no effect where a template of your own writes the site. Take one of them out.")


def _policy(level: Entry, named: Named, prefix: str, mistake: Mistake) -> Entry | None:
    name = level["access"]
    if name is None:
        return None
    if name not in named["access"]:
        raise mistake(f"{prefix}access", name, f"is not an access policy of nginx_access. {did_you_mean(name, named['access'])}")
    return named["access"][name]


def _limits(levels: Sequence[Sequence[str] | None], named: Named, key: str, mistake: Mistake) -> Entry:
    """Return C(limits), those that count, and C(wait), after how many seconds somebody who met one may try again."""
    names = limits.merged(*levels)
    for name in names:
        if name not in named["limits"]:
            raise mistake(key, name, f"is not a limit of nginx_limits. {did_you_mean(name, named['limits'])}")
    found = [named["limits"][name] for name in names]
    if len({limit["dry_run"] for limit in found}) > 1:
        raise mistake(key, names, "are not alike in dry_run, and nginx has one for all of a location. Say the same of each.")
    return {"limits": found, "wait": limits.seconds(found)}
