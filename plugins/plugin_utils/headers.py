# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The headers that a site sends: what is safe by itself, what people write, and what of a backend's is held back.

nginx passes C(add_header) on to a location only while the location has none of its own, so each level that differs is
given the whole of them.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping

from markupsafe import Markup

from ansible_collections.portico.web.plugins.module_utils.lexer import LONGEST_TOKEN
from ansible_collections.portico.web.plugins.plugin_utils import formats
from ansible_collections.portico.web.plugins.plugin_utils.entries import shown

STANDARD: Mapping[str, Markup] = {
    "X-Content-Type-Options": Markup("$portico_content_type_options"),
    "X-Frame-Options": Markup("$portico_frame_options"),
    "Referrer-Policy": Markup("$portico_referrer_policy"),
    "X-Request-ID": Markup("$portico_request_id_sent"),
    "Retry-After": Markup("$portico_retry_after"),
    "Cache-Control": Markup("$portico_cache_control"),
    "Alt-Svc": Markup("$portico_alternative"),
    "X-Cache": Markup("$upstream_cache_status"),
}
"""What portico/headers.conf sends, with the variables of maps.conf that are empty where a backend's own is passed on."""
_STANDARD = {header.lower(): (header, value) for header, value in STANDARD.items()}
_HSTS = "Strict-Transport-Security"

_OTHER_KEYS = {
    "strict-transport-security": "hsts",
    "content-security-policy": "csp",
    "content-security-policy-report-only": "csp_report_only",
}
_OF_NGINX = ("connection", "content-encoding", "content-length", "content-type", "date", "location", "server", "trailer", "transfer-encoding", "upgrade")
"""What an answer is made of: nginx would send a second one beside its own."""
_NAME = re.compile(r"[A-Za-z0-9!#%&'*+.^_`|~-]{1,100}")
LONGEST_ELSEWHERE: t.Final = 46
"""What the names of headers have room for where nginx speaks FastCGI, uwsgi or gRPC, whose tables nobody can make larger."""
_A_YEAR = 31536000


class Sends(t.NamedTuple):
    """What one level sends: portico/headers.conf or not, and then each header; and which of a backend's it holds back."""

    standard: bool
    headers: list[tuple[str, str]]
    hidden: list[str]


NOTHING_MORE: t.Final = Sends(True, [], [])
"""What a site sends that says nothing of headers."""


def name(value: str) -> str:
    """Return the name of a header (RFC 9110, section 5.1)."""
    if not _NAME.fullmatch(value):
        raise ValueError("is not the name of a header. Use letters, digits and hyphens.")
    return value


def headers(value: Mapping[t.Any, t.Any]) -> dict[str, str]:
    """Return headers, name to value, that may be sent beside what nginx sends."""
    found: dict[str, str] = {}
    for key, text in value.items():
        if not isinstance(key, str) or not _NAME.fullmatch(key):
            raise ValueError(f"has {shown(key)}, which is not the name of a header. Use letters, digits and hyphens.")
        if key.lower() in _OTHER_KEYS:
            raise ValueError(f'has {key}. Say it with the key "{_OTHER_KEYS[key.lower()]}".')
        if key.lower() in _OF_NGINX:
            raise ValueError(f"has {key}, which nginx makes itself. Take it out.")
        if key.lower() in map(str.lower, found):
            raise ValueError(f"has {key} twice. Keep one.")
        if text is not None and not isinstance(text, str):
            raise ValueError(f"has a value of {key} that is not text: {shown(text)}. Write it in quotes.")
        try:
            found[key] = header_text(text or "")
        except ValueError as error:
            raise ValueError(f"has a value of {key}, {shown(text)}, that {error}") from error
    return found


def header_text(value: str) -> str:
    """Return the value of a header (RFC 9110, section 5.5)."""
    formats.printable(value)
    if not value.isascii():
        raise ValueError("has letters that headers do not have. Write ASCII alone.")
    if "$" in value:
        raise ValueError("has a '$', which nginx would read as a variable. Take it out.")
    if value and not value.strip(" "):
        raise ValueError("has nothing but blanks in it, which nobody would receive. Write a text, or an empty one for none.")
    return fits(value.strip(" "))


def fits(value: str) -> str:
    """Refuse a text that is too long for nginx with the signs that it is written with there."""
    if len(re.sub(r'(["\\])', r"\\\1", value).encode()) > LONGEST_TOKEN:
        raise ValueError(f"is longer than {LONGEST_TOKEN} bytes, which nginx does not take. Shorten it.")
    return value


def hsts(value: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return a promise that can be kept (RFC 6797)."""
    if not 0 <= value["max_age"] <= 10 * _A_YEAR:
        raise ValueError("has a max_age that is not between 0 and ten years, in seconds. Write 63072000 for two years.")
    if value["preload"] and not (value["include_subdomains"] and value["max_age"] >= _A_YEAR):
        raise ValueError("has preload, which the list takes only with include_subdomains: true and a max_age of a year (31536000) or more. Write them too.")
    return dict(value)


def promise(value: Mapping[str, t.Any] | None) -> str | None:
    """Return the text of a promise that differs from Portico's own; None where it is that."""
    if value is None:
        return None
    words = [f"max-age={value['max_age']}", *["includeSubDomains"] * value["include_subdomains"], *["preload"] * value["preload"]]
    text = "; ".join(words)
    return None if text == "max-age=63072000" else text


UPLOADED: t.Final = {"Content-Security-Policy": Markup("$portico_uploaded"), "Cache-Control": ""}
"""What a location of files sends that visitors have brought, whose names are nothing to go by."""


def lasting(said: bool) -> dict[str, str]:
    """Return what a location of files sends of which somebody says whether they ever change under their names."""
    return {"Cache-Control": Markup("$portico_lasting") if said else ""}


def sends(*levels: Mapping[str, t.Any], instead: Mapping[str, str] | None = None) -> Sends:
    """Return what a level sends and holds back, all in all.

    :param levels: the site, and then the location, as they were written: headers, csp, csp_report_only, hide_headers.
    :param instead: headers that count instead of those, whoever says them, name to variable.
    """
    keeps_promise = levels[0].get("hsts") is None
    if keeps_promise and not instead and not any(map(says, levels)):
        return Sends(True, [], [])
    said: dict[str, tuple[str, str]] = {}
    hidden: dict[str, str] = {}
    for level in levels:
        written = dict(level["headers"] or {})
        for key, header in (("csp", "Content-Security-Policy"), ("csp_report_only", "Content-Security-Policy-Report-Only")):
            if level[key] is not None:
                written[header] = level[key]
        said.update({header.lower(): (header, text) for header, text in written.items()})
        hidden.update({header.lower(): header for header in level["hide_headers"] or []})
    said.update({header.lower(): (header, text) for header, text in (instead or {}).items()})
    if not keeps_promise:
        hidden[_HSTS.lower()] = _HSTS
    standard = _STANDARD.keys().isdisjoint(said)
    left = [] if standard else [pair for key, pair in _STANDARD.items() if key not in said]
    own = {key: pair for key, pair in said.items() if pair[1]}
    hidden.update({key: header for key, (header, _text) in own.items()})
    return Sends(standard, [*left, *own.values()], sorted(hidden.values(), key=str.lower))


def says(level: Mapping[str, t.Any]) -> bool:
    """Return whether a level says anything of headers."""
    return any(level[key] is not None for key in ("headers", "csp", "csp_report_only", "hide_headers"))
