# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a site does at a path, and how: one complete object for each location block."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import urlsplit

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.module_utils.lexer import statements, tokens
from ansible_collections.portico.web.plugins.plugin_utils import backends, caches, entries, formats, guards, headers, urls
from ansible_collections.portico.web.plugins.plugin_utils.entries import HIDDEN, Entry, Mistake, PorticoError, did_you_mean
from ansible_collections.portico.web.plugins.plugin_utils.named import Named

ANSWERS = ("app", "upstream", "proxy", "root", "alias", "redirect", "answer")
"""What a location can do. A site that does one thing only may say it without a list of locations."""

HOW = ("max_body_size", "timeout", "unbuffered", "backend", "headers", "hide_headers", "csp", "csp_report_only", "access_log", *guards.KEYS)
"""What a site says for all of its locations, and each of them for itself."""

OF_FILES = ("fallback", "immutable", "uploads")
"""What a site that is nothing but files says of them, and otherwise the location that has some."""

_NGINX_WAITS = 60
"""For so many seconds nginx waits for the next word of an answer, unless it is told otherwise (proxy_read_timeout)."""

_SECONDS_MORE = 5
"""gunicorn looks from time to time whether a worker's time is up. It is to end it first, and say so in its log."""

_LONGEST_TIMEOUT = 86400


class Known(t.NamedTuple):
    """What locations may name; None where it is not known, and not asked about."""

    apps: Mapping[str, Mapping[str, t.Any]] | None
    named: Named | None


def of_site(site: Entry, known: Known, of_its_block: Entry, mistake: Mistake) -> list[Entry]:
    """Return a site's locations, complete and checked.

    :param site: as the walk along the documentation has left it.
    :param of_its_block: what its server block says of visitors, as L(guards.of_site) returns it.
    :param mistake: makes the error of a key, a value and the reason.
    :raises PorticoError: at the first mistake.
    """
    given = [key for key in (*ANSWERS, "locations") if site[key] is not None]
    # A template of somebody's own may do something that has no key.
    if len(given) != 1 and (given or site["template"] is None):
        raise mistake(*_one_answer(given, (*ANSWERS, "locations")))
    for key in OF_FILES:
        if site["locations"] and site[key] is not None:
            raise mistake(key, site[key], "is for files. Say it in the location that has them.")
    if site["locations"]:
        written = [(f"locations[{at}].", location) for at, location in enumerate(site["locations"])]
    else:
        alone = {key: site[key] for key in (*ANSWERS, *OF_FILES)}
        written = [("", {"path": "/", "exact": False, "extra_config": None, **dict.fromkeys(HOW), **alone})] if given else []
    locations = [each for prefix, location in written for each in _locations(site, location, of_its_block, prefix, known, mistake)]
    _refuse_shared_paths(mistake, locations)
    if site["backend"] is not None and locations and not any(location["does"] == "proxy" for location in locations):
        raise mistake("backend", HIDDEN, "is for a proxy, and this site has none. An app is at its own socket, and an upstream says these things itself.")
    if of_its_block["cache"] and locations and not any(map(caches.can_keep, locations)):
        raise mistake("cache", of_its_block["cache"]["name"], "is for answers of HTTP backends, and this site has none. Take it out.")
    return locations


def _added(extra: str | None, names: str = "add_header|proxy_hide_header") -> list[str]:
    """Return the directives of some names that a text says for its own block, as they are written: a block with some of its own loses them."""
    if not extra:
        return []
    found, depth, start = [], 0, None
    for token in tokens(extra):
        if not token.mark:
            start = token.start if start is None else start
            continue
        if token.mark == ";" and depth == 0 and start is not None and re.match(rf"(?:{names})\s", extra[start:]):
            found.append(extra[start : token.end])
        depth += {"{": 1, "}": -1, ";": 0}[token.mark]
        start = None
    return found


def says(level: Mapping[str, t.Any]) -> bool:
    """Return whether a site or a location says anything that is a directive of its block."""
    return any(level[key] is not None for key in ("max_body_size", "timeout", "unbuffered", "access_log"))


def said(extra: str | None) -> set[str]:
    """Return the directives that a text says for the block that it stands in."""
    return {words[0] for depth, words, _line in statements(extra) if depth == 0} if extra else set()


def _locations(site: Entry, location: Entry, of_its_block: Entry, prefix: str, known: Known, mistake: Mistake) -> t.Iterator[Entry]:
    answers = [key for key in ANSWERS if location[key] is not None]
    if len(answers) != 1:
        key, value, why = _one_answer(answers, ANSWERS)
        raise mistake(prefix + key, value, why)
    does, target = answers[0], location[answers[0]]
    if location["fallback"] is not None and does != "root":
        raise mistake(f"{prefix}fallback", location["fallback"], "is for files. Give it together with root.")
    for key in ("immutable", "uploads"):
        if location[key] is not None and does not in ("root", "alias"):
            raise mistake(f"{prefix}{key}", location[key], "is for files. Give it together with root or alias.")
    if location["uploads"] and (location["csp"] or (not prefix and site["csp"])):
        raise mistake(f"{prefix}csp", location["csp"] or site["csp"], "is said by uploads too, which lets nothing in the files act. Take one of them out.")
    if location["immutable"] and location["fallback"] is not None:
        raise mistake(f"{prefix}immutable", True, "is not possible with fallback, whose page would be kept for a year at whatever path. Take one of them out.")
    said_of_it = location["headers"] or (site["headers"] if not prefix else None) or {}
    if location["immutable"] is not None and any(header.lower() == "cache-control" for header in said_of_it):
        raise mistake(f"{prefix}immutable", location["immutable"], "says Cache-Control, and so does headers. Take one of them out.")
    if prefix and location["backend"] is not None and does != "proxy":
        raise mistake(f"{prefix}backend", HIDDEN, "is for a proxy. An app is at its own socket, and an upstream says these things itself.")
    family = _family(does, target, known)
    complete = _location(location, does, target, site, family, prefix, mistake)
    if known.named is not None:
        complete.update(guards.of_location(location, site, of_its_block, known.named, prefix, mistake))
        complete.update(caches.of_location({**complete, "cache": location["cache"]}, of_its_block["cache"], known.named["caches"], prefix, mistake))
        complete["pages"] = complete["pages"] or "error_page" in said(location["extra_config"])
        complete["says"] = complete["says"] or any(complete[key] is not None for key in ("access", "limits", "cache"))
        _refuse_unbuffered_cache(complete, location, site, of_its_block["cache"], prefix, mistake)
    if does == "app" and known.apps is not None:
        if target not in known.apps:
            raise mistake(f"{prefix}app", target, f"is not an app of gunicorn_apps. {did_you_mean(target, known.apps)}")
        # Who may see the app may see its static files; how often somebody asks is counted for the app.
        yield from ({**static, **{key: complete[key] for key in ("access", "rules", "pages", "policy")}, **({"limits": [], "wait": 0} if location["limits"] == [] else {}), "says": static["says"] or complete["says"]} for static in _static_locations(known.apps[target], location["path"], site))
        if complete["timeout"] is None and site["timeout"] is None:
            complete["waits"] = _waits(known.apps[target], site["extra_config"], location["extra_config"])
    if does == "upstream" and known.named is not None:
        upstreams = known.named["upstreams"]
        if target not in upstreams:
            raise mistake(f"{prefix}upstream", target, f"is not an upstream of nginx_upstreams. {did_you_mean(target, upstreams)}")
        upstream = upstreams[target]
        complete["tries"] = upstream["tries"]
        complete["spoken"] = backends.spoken(backends.scheme(upstream), upstream, upstream["host"], "", location["path"])
    yield complete


def _family(does: str, target: t.Any, known: Known) -> str:
    """Return what nginx's directives begin with of the protocol by which a location's backend is spoken to."""
    if does == "proxy":
        return backends.PROTOCOLS[urls.parsed(target).scheme].family
    if does == "upstream" and known.named is not None and target in known.named["upstreams"]:
        return backends.PROTOCOLS[backends.scheme(known.named["upstreams"][target])].family
    return "proxy"


def _location(location: Entry, does: str, target: t.Any, site: Entry, family: str, prefix: str, mistake: Mistake) -> Entry:
    path = location["path"]
    if f"{path}/".startswith(layout.OWN_PATHS[1]) or (path == layout.OWN_PATHS[0] and site["tls"] and not location["exact"]):
        raise mistake(f"{prefix}path", path, "is Portico's own. Choose another one.")
    if does == "alias" and not path.endswith("/") and not location["exact"]:
        raise mistake(f"{prefix}path", path, "has no slash at its end, and nginx would lead visitors out of the folder of its alias. Write one.")
    spoken = None
    if does == "proxy":
        spoken = backends.proxied(target, backends.said(site["backend"], location["backend"], prefix, mistake), location, prefix, mistake)
    sends = None
    # nginx drops the headers of the server from a location that sends one of its own, and what is hidden alike.
    instead = {**(headers.UPLOADED if location["uploads"] else {}), **({} if location["immutable"] is None else headers.lasting(location["immutable"]))}
    written = {name.lower() for level in (site, location) for name in level["headers"] or {}}
    # What takes out our own word of a header does not take out theirs.
    instead = {name: text for name, text in instead.items() if text or name.lower() not in written}
    is_http = family == "proxy"
    if family == "grpc" and not site["tls"]:
        raise mistake(f"{prefix}{does}", target, "speaks gRPC, whose clients nginx hears over TLS alone. Take tls: false out.")
    if not is_http:
        location = {**location, **_said_again(location, site, family, prefix, mistake)}
    if instead or headers.says(location) or (not is_http and headers.sends(site).hidden) or {"add_header", "proxy_hide_header"} & said(location["extra_config"]):
        sends = headers.sends(site, location, instead=instead)
    return {
        "path": path,
        "exact": location["exact"],
        "says": sends is not None or says(location),
        "does": does,
        "family": family,
        "target": target,
        "rest": _rest(does, target),
        "fallback": location["fallback"],
        "uploads": bool(location["uploads"]),
        "bare": site["trailing_slash"] == "remove" and not {"try_files", "autoindex"} & said(location["extra_config"]),
        "spoken": spoken,
        "tries": None,
        "waits": None,
        "sends": sends,
        "repeated": _added(site["extra_config"], "add_header|proxy_hide_header" if is_http else "add_header") if sends else [],
        "repeated_pages": _added(site["extra_config"], "error_page"),
        "access": None,
        "limits": None,
        "wait": None,
        "cache": None,
        "is_server": False,
        "policy": None,
        "rules": [],
        "pages": False,
        **{key: location[key] for key in ("max_body_size", "timeout", "unbuffered", "access_log", "extra_config")},
    }


def _said_again(location: Entry, site: Entry, family: str, prefix: str, mistake: Mistake) -> Entry:
    """Return what a site has said in the directives of HTTP, for a location that is spoken to by another protocol.

    :raises PorticoError: for what that protocol does not know.
    """
    found = {key: site[key] if location[key] is None else location[key] for key in ("timeout", "unbuffered")}
    if family == "grpc":
        if location["unbuffered"] or (not prefix and site["unbuffered"]):
            raise mistake(f"{prefix}unbuffered", found["unbuffered"], "has no meaning for gRPC, which is passed on as it comes. Take it out.")
        found["unbuffered"] = None
    elif found["unbuffered"]:
        if "requests" in (location["unbuffered"] or (not prefix and site["unbuffered"]) or []):
            why = f"has requests, which is not possible with {family}: its applications are told first how long a body is. Take it out."
            raise mistake(f"{prefix}unbuffered", found["unbuffered"], why)
        found["unbuffered"] = [each for each in found["unbuffered"] if each != "requests"]
    long = next((name for name in headers.sends(site, location).hidden if len(name) > headers.LONGEST_ELSEWHERE), None)
    if long:
        why = f"is longer than {headers.LONGEST_ELSEWHERE} letters, which nginx knows for HTTP alone. Take it out, or say it in locations of another kind."
        raise mistake(f"{prefix}headers", long, why)
    return found


def _refuse_unbuffered_cache(complete: Entry, location: Entry, site: Entry, of_its_site: Entry | None, prefix: str, mistake: Mistake) -> None:
    """nginx keeps no answer that it passes on as it comes."""
    unbuffered = site["unbuffered"] if location["unbuffered"] is None else location["unbuffered"]
    cache = complete["cache"] or of_its_site
    if cache and cache["name"] != "none" and caches.can_keep(complete) and "answers" in (unbuffered or []):
        raise mistake(f"{prefix}cache", cache["name"], "keeps nothing where answers are passed on unbuffered. Take one of them out, or say cache: none there.")


def _waits(app: Mapping[str, t.Any], *extras: str | None) -> int | None:
    """Return for how many seconds nginx waits for an app whose answers may take longer than nginx's own patience."""
    if any("proxy_read_timeout" in said(extra) for extra in extras) or app.get("timeout", 0) < _NGINX_WAITS:
        return None
    return app["timeout"] + _SECONDS_MORE


def _rest(does: str, target: t.Any) -> str:
    """Return what nginx appends to a redirect's target: the visitor's path and query, if the target has none."""
    if does != "redirect":
        return ""
    parts = urlsplit(target)
    return "" if parts.path or parts.query or parts.fragment else "$request_uri"


def _one_answer(given: Sequence[str], possible: Sequence[str]) -> tuple[str, object, str]:
    if given:
        return " and ".join(given), HIDDEN, f"are given together. A {'site' if 'locations' in possible else 'location'} does one thing: keep one of them."
    return " or ".join(possible), HIDDEN, "is missing. Say with one of them what the site does."


def _static_locations(app: Mapping[str, t.Any], path: str, site: Entry) -> t.Iterator[Entry]:
    """Walk the static folders of an app that is mounted at a path."""
    source = layout.app_source(app["name"])
    for below, folder in (app["static"] or {}).items():
        plain = {"path": path.rstrip("/") + below, "exact": False, "extra_config": None, **dict.fromkeys((*OF_FILES, *HOW))}
        yield _location(plain, "static", f"{source}/{folder}/", site, "proxy", "", _no_mistake)


def _no_mistake(key: str, value: object, why: str) -> PorticoError:
    raise AssertionError(f"{key} {value} {why}")


def _refuse_shared_paths(mistake: Mistake, locations: Iterable[Entry]) -> None:
    seen: set[tuple[str, bool]] = set()
    for location in locations:
        place = location["path"], location["exact"]
        if place in seen:
            raise mistake("locations", location["path"], "is the path of two locations (an app brings its static folders along). Keep one.")
        seen.add(place)


# ---- forms of values


def _timeout(value: int) -> int:
    if not 1 <= value <= _LONGEST_TIMEOUT:
        raise ValueError(f"is not a number of seconds between 1 and {_LONGEST_TIMEOUT}.")
    return value


def _fallback(value: str) -> str:
    if not value.startswith("/") or value.endswith("/"):
        raise ValueError("is not a file below root. Begin with a slash, as in /index.html.")
    return formats.read_path(value)


def _answer(value: Mapping[str, t.Any]) -> dict[str, t.Any]:
    if not 200 <= value["status"] <= 599 or 300 <= value["status"] < 400:
        raise ValueError("has a status that is no answer of its own. Write one of 200 to 299 or 400 to 599; redirect makes redirects.")
    return dict(value)


def _answer_text(value: str) -> str:
    formats.printable(value.replace("\n", " ").replace("\t", " "))
    if "$" in value:
        raise ValueError("has a '$', which nginx would read as a variable. Take it out.")
    return headers.fits(value)


def _of_both(key: str) -> Iterable[str]:
    return key, f"locations.{key}"


_FORMS: t.Final[dict[str, entries.Format]] = {
    "proxy": urls.any_backend,
    "root": formats.absolute_path,
    "alias": formats.absolute_path,
    "fallback": _fallback,
    "redirect": urls.redirect,
    "answer": _answer,
    "answer.text": _answer_text,
    "answer.content_type": headers.header_text,
    "max_body_size": formats.size,
    "timeout": _timeout,
    "backend.host": urls.asked_host,
    "backend.ca": formats.absolute_path,
    "backend.certificate_name": formats.host_name,
    "backend.script": formats.absolute_path,
    "headers": headers.headers,
    "hide_headers": headers.name,
    "csp": headers.header_text,
    "csp_report_only": headers.header_text,
    "extra_config": formats.nginx_text,
}

FORMATS: t.Final[dict[str, entries.Format]] = {
    **{place: form for key, form in _FORMS.items() for place in _of_both(key)},
    "locations.path": formats.read_path,
}
"""For L(entries.normalise), of what a site and each of its locations can say alike."""
