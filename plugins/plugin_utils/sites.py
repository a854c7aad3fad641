# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The list of sites: from what people write to complete objects that templates need not ask about."""

from __future__ import annotations

import os
import re
import typing as t
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.module_utils.lexer import statements
from ansible_collections.portico.web.plugins.plugin_utils import entries, formats
from ansible_collections.portico.web.plugins.plugin_utils.entries import HIDDEN, Entry, PorticoError, did_you_mean, problem, shown

_ANSWERS = ("app", "proxy", "root", "redirect")
"""What a location can do. A site that does one thing only may say it without a list of locations."""

_NGINX_WAITS = 60
"""For so many seconds nginx waits for the next word of an answer, unless it is told otherwise (proxy_read_timeout)."""

_SECONDS_MORE = 5
"""gunicorn looks from time to time whether a worker's time is up. It is to end it first, and say so in its log."""

def normalise_sites(sites: object, apps: Sequence[Mapping[str, t.Any]] | None, variable: str = "nginx_sites") -> list[Entry]:
    """Return the sites complete and checked.

    :param apps: the complete apps that a site may name; None where they are not known and not asked about.
    :returns: for each site: name, server_names, canonical, aliases, tls, certificate, issuer, and locations, a list
        whose elements have path, does (C(app), C(proxy), C(root), C(redirect) or C(static)), target, rest,
        extra_config, adds_header and waits (seconds, or None for nginx's own); extra_config and template, each text or None.
    :raises PorticoError: at the first mistake.
    """
    described = entries.options("nginx_publish", "sites")
    complete = entries.normalise(variable, sites, described, _FORMATS)
    known = None if apps is None else {app["name"]: app for app in apps if app.get("state") != "absent"}
    normalised = [_site(variable, site, known) for site in complete]
    _refuse_shared_names(variable, normalised)
    _refuse_two_issuers(variable, normalised)
    return normalised


def check_templates(sites: list[Entry], resolve: Callable[[str], str], variable: str = "nginx_sites") -> None:
    """Refuse a template that the controller does not have.

    :param resolve: makes a path absolute that was written beside the playbook.
    """
    for site in sites:
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


def _anything(_value: object) -> None:
    pass


def _own_text(value: object) -> None:
    if not isinstance(value, str):
        raise ValueError("is not text. Write directives of nginx, with a ';' at the end of each.")
    formats.nginx_text(value)


def _port(value: object) -> None:
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,5}", str(value)) or not 1 <= int(str(value)) <= 65535:
        raise ValueError("is not a port. Write a number from 1 to 65535.")


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


def _site(variable: str, site: Entry, apps: Mapping[str, Mapping[str, t.Any]] | None) -> Entry:
    def mistake(key: str, value: object, why: str) -> PorticoError:
        return problem(variable, site["name"], key, value, why)

    given = [key for key in (*_ANSWERS, "locations") if site[key] is not None]
    # A template of somebody's own may do something that has no key.
    if len(given) != 1 and (given or site["template"] is None):
        raise mistake(*_one_answer(given, (*_ANSWERS, "locations")))
    names = site["server_names"]
    if not names:
        raise mistake("server_names", names, "is empty. Write at least one host name.")
    if names[0].startswith("*."):
        raise mistake("server_names", names[0], "is a pattern, and the first name is the canonical one. Write a full name first.")
    twins = [name for at, name in enumerate(names) if name in names[:at]]
    if twins:
        raise mistake("server_names", twins[0], "stands there twice. Write each name once.")

    locations: list[Entry] = []
    alone = [{"path": "/", given[0]: site[given[0]]}] if given and given != ["locations"] else []
    for at, location in enumerate(site["locations"] or alone):
        prefix = f"locations[{at}]." if site["locations"] else ""
        answers = [key for key in _ANSWERS if location.get(key) is not None]
        if len(answers) != 1:
            key, value, why = _one_answer(answers, _ANSWERS)
            raise mistake(prefix + key, value, why)
        does, target = answers[0], location[answers[0]]
        waits = None
        if does == "app" and apps is not None:
            if target not in apps:
                raise mistake(f"{prefix}app", target, f"is not an app of gunicorn_apps. {did_you_mean(target, apps)}")
            locations.extend(_static_locations(apps[target], location["path"]))
            waits = _waits(apps[target], site["extra_config"], location.get("extra_config"))
        locations.append(_location(location["path"], does, target, location.get("extra_config"), waits))
    _refuse_shared_paths(mistake, locations)
    return {
        "name": site["name"],
        "server_names": names,
        "canonical": names[0],
        "aliases": names[1:],
        "tls": site["tls"],
        "certificate": site["certificate"] or site["name"],
        "issuer": site["issuer"],
        "locations": locations,
        "extra_config": site["extra_config"],
        "template": site["template"],
    }


def _location(path: str, does: str, target: str, extra: str | None = None, waits: int | None = None) -> Entry:
    # nginx drops the headers of the server from a location that sends one of its own.
    adds_header = "add_header" in _said(extra)
    return {"path": path, "does": does, "target": target, "rest": _rest(does, target), "extra_config": extra, "adds_header": adds_header, "waits": waits}


def _said(extra: str | None) -> set[str]:
    """Return the directives that a text says for the block that it stands in."""
    return {words[0] for depth, words, _line in statements(extra or "") if depth == 0}


def _waits(app: Mapping[str, t.Any], *extras: str | None) -> int | None:
    """Return for how many seconds nginx waits for an app whose answers may take longer than nginx's own patience."""
    if any("proxy_read_timeout" in _said(extra) for extra in extras) or app.get("timeout", 0) < _NGINX_WAITS:
        return None
    return app["timeout"] + _SECONDS_MORE


def _rest(does: str, target: str) -> str:
    """Return what nginx appends to a redirect's target: the visitor's path and query, if the target has none."""
    if does != "redirect":
        return ""
    parts = urlsplit(target)
    return "" if parts.path or parts.query or parts.fragment else "$request_uri"


def _one_answer(given: Sequence[str], possible: Sequence[str]) -> tuple[str, object, str]:
    if given:
        return " and ".join(given), HIDDEN, f"are given together. A {'site' if 'locations' in possible else 'location'} does one thing: keep one of them."
    return " or ".join(possible), HIDDEN, "is missing. Say with one of them what the site does."


def _static_locations(app: Mapping[str, t.Any], path: str) -> list[Entry]:
    """Return the static folders of an app that is mounted at a path."""
    base = path.rstrip("/")
    source = layout.app_source(app["name"])
    return [_location(base + prefix, "static", f"{source}/{folder}/") for prefix, folder in (app["static"] or {}).items()]


def _refuse_shared_paths(mistake: t.Callable[[str, object, str], PorticoError], locations: Iterable[Entry]) -> None:
    seen: set[str] = set()
    for location in locations:
        if location["path"] in seen:
            raise mistake("locations", location["path"], "is the path of two locations (an app brings its static folders along). Keep one.")
        seen.add(location["path"])


def _refuse_shared_names(variable: str, sites: Iterable[Entry]) -> None:
    """nginx would only warn about it and let the first site win."""
    owner: dict[str, str] = {}
    for site in sites:
        for name in site["server_names"]:
            if name in owner:
                raise problem(variable, site["name"], "server_names", name, f'belongs to the site "{owner[name]}" already. Give it to one of the two.')
            owner[name] = site["name"]


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


def _backend(value: str) -> str:
    """An C(http://) URL that C(proxy_pass) takes as it stands."""
    parts = _url(value, ("http",))
    if parts.query or parts.fragment or parts.username:
        raise ValueError("has a query, a fragment or a user in it. Write http://HOST:PORT, with a path at most.")
    return value


def _redirect(value: str) -> str:
    _url(value, ("http", "https"))
    return value


def _url(value: str, schemes: Sequence[str]) -> t.Any:
    either = " or ".join(f"{scheme}://" for scheme in schemes)
    formats.printable(value)
    if "$" in value or re.search(r"[\s\"\\<>^`{|}]", value):
        raise ValueError("has a character that no URL has. Percent-encode it.")
    try:
        parts = urlsplit(value)
        # Only reading the port tells whether it is a number below 65536.
        valid = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"is not a URL that begins with {either} and a host. Write it in full.")
    if parts.hostname and ":" not in parts.hostname:
        formats.host_name(parts.hostname, what="has a host that")
    return parts


_SETTINGS: Mapping[str, Callable[[object], None]] = {"http_port": _port, "https_port": _port, "extra_config": _own_text, "scope": _scope}

_FORMATS: Mapping[str, entries.Format] = {
    "name": formats.file_name,
    "server_names": server_name,
    "certificate": formats.file_name,
    "proxy": _backend,
    "root": formats.absolute_path,
    "redirect": _redirect,
    "extra_config": formats.nginx_text,
    "template": formats.printable,
    "locations.path": formats.url_path,
    "locations.proxy": _backend,
    "locations.root": formats.absolute_path,
    "locations.redirect": _redirect,
    "locations.extra_config": formats.nginx_text,
}
