# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The list of sites: from what people write to complete objects that templates need not ask about."""

from __future__ import annotations

import os
import re
import typing as t
from collections.abc import Callable, Iterable, Mapping, Sequence

from ansible.module_utils.parsing.convert_bool import boolean

from ansible_collections.portico.web.plugins.module_utils.lexer import statements
from ansible_collections.portico.web.plugins.plugin_utils import agents, entries, formats, guards, headers, locations, modules, moves, pages, proxies, repositories, urls, variables
from ansible_collections.portico.web.plugins.plugin_utils.entries import HIDDEN, Entry, PorticoError, problem, shown
from ansible_collections.portico.web.plugins.plugin_utils.named import Named


_LONGEST_SLASHED = 200
"""Bytes: a path that is exempt from it stands in a pattern, with each of its signs in all forms."""


def normalise_sites(
    sites: object, apps: Sequence[Mapping[str, t.Any]] | None, variable: str = "nginx_sites", named: Named | None = None
) -> list[Entry]:
    """Return the sites complete and checked.

    :param apps: the complete apps that a site may name; None where they are not known and not asked about.
    :param named: what else it may name, as L(named.normalise) returns it; None alike.
    :returns: for each site: name, server_names, canonical, aliases, tls, certificate, issuer, promise and own_promise (the variable that
        has it, and its text where it is not Portico's own), sends (L(headers.Sends)), says (whether its block has directives of these), locations (L(locations.of_site)), max_body_size, timeout, unbuffered,
        extra_config and template, each as it is documented, or None.
    :raises PorticoError: at the first mistake.
    """
    described = entries.options("nginx_publish", "sites")
    complete = entries.normalise(variable, sites, described, _FORMATS)
    known = locations.Known(None if apps is None else {app["name"]: app for app in apps if app.get("state") != "absent"}, named)
    normalised = [_site(variable, site, known) for site in complete]
    _refuse_shared_names(variable, normalised)
    _refuse_two_issuers(variable, normalised)
    _refuse_shared_logs(variable, normalised)
    return normalised


def read_files(sites: list[Entry], resolve: Callable[[str], str], read_text: Callable[[str], str], variable: str = "nginx_sites") -> None:
    """Read what sites have in files of the controller, and refuse what is not there.

    :param resolve: makes a path absolute that was written beside the playbook.
    :param read_text: returns the text of a file on the controller; L(controller.reader) makes one.
    :raises PorticoError: at the first mistake.
    """
    for site in sites:
        if site["redirects_file"] is not None or site["redirects"]:
            site["moved"] = moves.of_site(site, read_text, lambda key, value, why, name=site["name"]: problem(variable, name, key, value, why))
        if site["template"] is not None and not os.path.isfile(resolve(site["template"])):
            raise problem(variable, site["name"], "template", site["template"], f"is not a file on the controller (looked for {resolve(site['template'])}).")


def check_settings(settings: Mapping[str, object]) -> None:
    """Refuse what is wrong with the variables of nginx that are no lists.

    :param settings: the name of an option of C(nginx_publish) to what was given; those with no form are passed over.
    :raises PorticoError: naming the variable, the value, and what to do.
    """
    for key, value in settings.items():
        try:
            _SETTINGS.get(key, _anything)(value)
        except ValueError as error:
            raise PorticoError(f"nginx_{key}: {shown(value)} {error}") from error


def check_together(settings: Mapping[str, object]) -> None:
    """Refuse variables of nginx that are right each for itself, and not together.

    :param settings: those that were given, each without C(nginx_) before its name.
    """
    proxied, proxies_of = _is_true(settings.get("proxy_protocol")), settings.get("trusted_proxies")
    if proxied and _is_true(settings.get("http3")):
        raise PorticoError("nginx_proxy_protocol and nginx_http3 are not possible together: over UDP nobody says who asks, and visitors would get past the proxies. Take one of them out.")
    if proxied and not proxies_of:
        raise PorticoError("nginx_proxy_protocol: true has no meaning without nginx_trusted_proxies: everybody would have the proxy's address. Say in the latter which proxies speak it.")
    own = next((network for network in proxies.networks(proxies_of or []) if proxied and proxies.is_this_host(network)), None)
    if own:
        raise PorticoError(
            f"nginx_proxy_protocol: {own} of nginx_trusted_proxies is this host, and whoever is on the host itself speaks no PROXY protocol to nginx at 127.0.0.1. "
            "Let that proxy ask at another address of the host, and write that one."
        )
    said = {words[0] for depth, words, _line in statements(str(settings.get("extra_config") or "")) if depth == 0} & proxies.DIRECTIVES
    if proxies_of and said:
        raise PorticoError(f"nginx_extra_config: {min(said)} would count instead of what nginx_trusted_proxies says. Take one of them out.")


def _is_true(value: object) -> bool:
    return value is not None and boolean(value, strict=False)


def _anything(_value: object) -> None:
    pass


def _own_text(value: object) -> None:
    if not isinstance(value, str):
        raise ValueError("is not text. Write directives of nginx, with a ';' at the end of each.")
    formats.nginx_text(value)


def _port(value: object) -> None:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,5}", str(value)) or not 1 <= int(str(value)) <= 65535:
        raise ValueError("is not a port. Write a number from 1 to 65535.")


def _header(value: object) -> None:
    if len(str(value)) > headers.LONGEST_ELSEWHERE:
        raise ValueError(f"is longer than {headers.LONGEST_ELSEWHERE} letters, which not all backends can be told. Write a shorter one.")
    if headers.name(str(value)).lower() in ("host", "connection", "upgrade", "x-request-id", "x-forwarded-proto", "x-forwarded-host", "forwarded", "proxy_protocol"):
        raise ValueError("does not name a visitor's address. Write one such as X-Forwarded-For or CF-Connecting-IP; nginx_proxy_protocol is said by itself.")


def _resolvers(value: object) -> None:
    if not isinstance(value, list):
        raise ValueError("is no list. Write one of addresses.")
    for each in value:
        try:
            urls.resolver(str(each))
        except ValueError as error:
            raise ValueError(f"has {shown(each)}, which {error}") from error


def _scope(value: object) -> None:
    formats.file_name(str(value))


def wanted_certificates(sites: object) -> list[dict[str, t.Any]]:
    """Return the certificates that the sites want: one for each that is named, for all the names it serves.

    :returns: dictionaries with name, domains and issuer, as C(certbot_certificates) has them.
    """
    wanted: dict[str, Entry] = {}
    for site in _with_certificate(normalise_sites(sites, apps=None)):
        certificate = wanted.setdefault(site["certificate"], {"name": site["certificate"], "domains": [], "issuer": site["issuer"]})
        certificate["domains"] += site["server_names"]
    return list(wanted.values())


def certificates(sites: Iterable[Entry]) -> dict[str, list[str]]:
    """Return the certificates that normalised sites are served with, each with the names that it serves, in order."""
    served: dict[str, list[str]] = {}
    for site in _with_certificate(sites):
        served.setdefault(site["certificate"], []).extend(site["server_names"])
    return {name: sorted(names) for name, names in sorted(served.items())}


def _with_certificate(sites: Iterable[Entry]) -> t.Iterator[Entry]:
    return (site for site in sites if site["tls"])


def _site(variable: str, site: Entry, known: locations.Known) -> Entry:
    def mistake(key: str, value: object, why: str) -> PorticoError:
        return problem(variable, site["name"], key, value, why)

    names = site["server_names"]
    if not names:
        raise mistake("server_names", names, "is empty. Write at least one host name.")
    if names[0].startswith("*."):
        raise mistake("server_names", names[0], "is a pattern, and the first name is the canonical one. Write a full name first.")
    twins = [name for at, name in enumerate(names) if name in names[:at]]
    if twins:
        raise mistake("server_names", twins[0], "stands there twice. Write each name once.")
    if site["hsts"] is not None and not site["tls"]:
        raise mistake("hsts", site["hsts"], "is a promise that browsers hear over TLS alone, and this site has tls: false. Take one of them out, and let whoever ends TLS in front of it promise it.")
    sends = headers.sends(site)
    block = guards.NONE if known.named is None else guards.of_site(site, known.named, mistake)
    found = locations.of_site(site, known, block, mistake)
    over_all = guards.over_all(site, block, found, mistake)
    exempt = moves.unslashed({**site, "locations": found}) if site["trailing_slash"] else []
    long = next((path for path in exempt if len(path.encode()) > _LONGEST_SLASHED), None)
    if long:
        raise mistake("trailing_slash", site["trailing_slash"], f"is not possible with a location whose path is longer than {_LONGEST_SLASHED} bytes ({shown(long[:40])}...). Take one of them out.")
    return {
        "name": site["name"],
        "server_names": names,
        "canonical": names[0],
        "aliases": names[1:],
        "tls": site["tls"],
        "certificate": site["certificate"] or site["name"],
        "issuer": site["issuer"],
        **_promise(site),
        "sends": sends,
        **block,
        **pages.of_site(site),
        **over_all,
        "moved": site["redirects"] or {},
        "says": bool(block["access"] or block["limits"] or block["cache"] or over_all["clients"] or site["maintenance"] or site["redirects"] or site["redirects_file"] or site["trailing_slash"] or site["refuse_agents"]) or locations.says(site) or bool(sends.hidden) or (not site["tls"] and (sends != headers.NOTHING_MORE or "add_header" in locations.said(site["extra_config"]))),
        "locations": guards.of_all(found, block, over_all),
        **{key: site[key] for key in ("max_body_size", "timeout", "unbuffered", "access_log", "trailing_slash", "redirects", "redirects_file", "refuse_agents", "extra_config", "template")},
    }


def _promise(site: Entry) -> Entry:
    """Return the variable that has the site's promise of HTTPS, and its text where it is not Portico's own."""
    own = headers.promise(site["hsts"])
    if own is None:
        return {"promise": "$portico_promise", "own_promise": None}
    return {"promise": f"$portico_promise_{variables.number(site['name'])}", "own_promise": own}


def _refuse_shared_names(variable: str, sites: Iterable[Entry]) -> None:
    """nginx would only warn about it and let the first site win."""
    owner: dict[str, str] = {}
    for site in sites:
        for name in site["server_names"]:
            if name in owner:
                raise problem(variable, site["name"], "server_names", name, f'belongs to the site "{owner[name]}" already. Give it to one of the two.')
            owner[name] = site["name"]


def _refuse_shared_logs(variable: str, sites: Iterable[Entry]) -> None:
    owner = {name: "nginx itself" for name in ("access.log", "error.log", "access.json.log", "streams.log", "streams.json.log")}
    for site in sites:
        kinds = {level["access_log"] for level in (site, *site["locations"])} - {None, "none"}
        for name in sorted(f"{site['name']}{'.json' if kind == 'json' else ''}.log" for kind in kinds):
            if name in owner:
                raise problem(variable, site["name"], "access_log", HIDDEN, f"would be written to /var/log/nginx/{name}, which is the log of {owner[name]}. Give the site another name.")
            owner[name] = f'the site "{site["name"]}"'


def _refuse_two_issuers(variable: str, sites: Iterable[Entry]) -> None:
    first: dict[str, Entry] = {}
    for site in _with_certificate(sites):
        other = first.setdefault(site["certificate"], site)
        if other["issuer"] != site["issuer"]:
            why = f'is not what the site "{other["name"]}" says of the certificate "{site["certificate"]}" that they share ("{other["issuer"]}"). '
            raise problem(variable, site["name"], "issuer", site["issuer"], f"{why}Say the same in both, or give one of them a certificate of its own.")


def server_name(value: str) -> str:
    """Return a host name in small letters, or a pattern that begins with C(*.)."""
    return ("*." if value.startswith("*.") else "") + formats.host_name(value.removeprefix("*."))


_SETTINGS: Mapping[str, Callable[[object], object]] = {
    "http_port": _port,
    "https_port": _port,
    "trusted_proxies": proxies.check,
    "trusted_header": _header,
    "resolvers": _resolvers,
    "repository": repositories.normalise,
    "modules": modules.check,
    "extra_config": _own_text,
    "scope": _scope,
}

_FORMATS: Mapping[str, entries.Format] = {
    "name": formats.file_name,
    "server_names": server_name,
    "certificate": formats.file_name,
    "hsts": headers.hsts,
    "error_pages": pages.error_pages,
    "maintenance": pages.maintenance,
    "maintenance.allow": formats.network,
    "maintenance.open": formats.read_path,
    "template": formats.printable,
    "redirects": moves.redirects,
    "refuse_agents": agents.agent,
    "redirects_file": formats.printable,
    **locations.FORMATS,
}
