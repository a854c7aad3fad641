# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Render nginx's configuration so that no value can be more than a value.

nginx reads tokens, as a browser reads HTML: what a template puts between two blanks must arrive as one token,
whatever is in it. C(nginx -t) does not notice when it does not: C(server_name a; return 418) is accepted. So every
C({{ expression }}) is turned into one token here, quoted where it must be, and C(| safe) is the only way around.
The grammar is that of ngx_conf_read_token in nginx's src/core/ngx_conf_file.c.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ansible_collections.portico.web.plugins.module_utils import layout

_TEMPLATES = Path(__file__).parents[2] / "roles" / "nginx" / "templates"
_NEEDS_NO_QUOTES = re.compile(r"[^\s;{}\"'\\#$]+")
_LONGEST_TOKEN = 4000
"""nginx refuses parameters that are longer than its buffer of 4096 bytes."""

# One file a concern, in the order of their meaning for a reader; a site has a file of its own.
_FILES = ("nginx.conf", "tls.conf", "maps.conf", "headers.conf", "proxy.conf", "acme.conf", "default.conf", "apps.conf")


@dataclass(frozen=True)
class Host:
    """What the text depends on: facts of the host's nginx, never the name of its distribution.

    C(version) and C(openssl) are tuples of integers; a host without nginx is taken for a current one.
    """

    version: tuple[int, ...] = (99,)
    openssl: tuple[int, ...] = (99,)
    ipv6: bool = True

    @property
    def has_http2_directive(self) -> bool:
        """C(http2 on) came with 1.25.1, which deprecated the flag of C(listen)."""
        return self.version >= (1, 25, 1)

    @property
    def rotates_ticket_keys(self) -> bool:
        """Since 1.23.2 nginx makes new session ticket keys by itself, when the session cache is shared."""
        return self.version >= (1, 23, 2)

    @property
    def has_hybrid_key_exchange(self) -> bool:
        """X25519MLKEM768 is in OpenSSL since 3.5; named to an older one, it keeps nginx from starting."""
        return self.openssl >= (3, 5)


def configuration(sites: Sequence[Mapping[str, t.Any]], apps: Sequence[Mapping[str, t.Any]], host: Host, ports: tuple[int, int]) -> dict[str, str]:
    """Return the whole configuration.

    :param sites: complete sites, as L(sites.normalise_sites) returns them.
    :param ports: the ports for plain HTTP and for HTTPS.
    :returns: path inside the generation -> text.
    """
    environment = _environment()
    named = {location["target"] for site in sites for location in site["locations"] if location["does"] == "app"}
    common = {
        "host": host,
        "http_port": ports[0],
        "https_port": ports[1],
        "apps": [{"name": app["name"], "socket": layout.app_socket(app["name"])} for app in apps if app["name"] in named],
        "acme_webroot": layout.ACME_WEBROOT,
    }
    files = {name: environment.get_template(f"{name}.j2").render(common) for name in _FILES}
    site_template = environment.get_template("site.conf.j2")
    for site in sites:
        files[f"sites/{site['name']}.conf"] = site_template.render(common, site=site)
    return files


def token(value: t.Any) -> Markup:
    """Return a value as nginx reads it: one token, or several for a list.

    :raises ValueError: for a value that no token can carry.
    """
    if isinstance(value, Markup):
        return value
    if isinstance(value, bool):
        return Markup("on" if value else "off")
    if isinstance(value, (list, tuple)):
        return Markup(" ").join(token(each) for each in value)
    if not isinstance(value, (str, int)):
        raise ValueError(f"{value!r} cannot be written into nginx's configuration")
    text = str(value)
    if "\0" in text or len(text.encode()) > _LONGEST_TOKEN:
        raise ValueError("a value that is too long, or has a NUL in it, cannot be written into nginx's configuration")
    if "$" in text:
        # It has no escape: nginx would take what follows for the name of a variable.
        raise ValueError(f"{text!r} has a '$', which nginx would read as a variable")
    if _NEEDS_NO_QUOTES.fullmatch(text):
        return Markup(text)
    return Markup('"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')


def bare(value: t.Any) -> Markup:
    """Return a value that stands in the middle of a token, where quotes would not help: C(unix:{{ path | bare }}).

    :raises ValueError: for a value that would need them.
    """
    text = token(value)
    if text.startswith('"'):
        raise ValueError(f"{value!r} cannot stand inside a token of nginx's configuration")
    return text


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=token,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["bare"] = bare
    return environment
