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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Undefined, pass_context
from markupsafe import Markup

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.module_utils.lexer import LONGEST_TOKEN, indented, statements
from ansible_collections.portico.web.plugins.plugin_utils import own_templates

_TEMPLATES = Path(__file__).parents[2] / "roles" / "nginx" / "templates"
_NEEDS_NO_QUOTES = re.compile(r"[^\s;{}\"'\\#$]+")

# One file a concern, in the order of their meaning for a reader; a site has a file of its own.
_FILES = ("nginx.conf", "tls.conf", "maps.conf", "headers.conf", "forwarded.conf", "proxy.conf", "acme.conf", "http.conf", "default.conf")
_REPEATED = {"include", "add_header"}
"""Directives that others may say as well as we: nginx does what all of them say."""
_HTTP_LEVEL = ("nginx.conf", "tls.conf")

SETTINGS = ("http_port", "https_port", "extra_config")
"""The options of nginx_publish that there is one of for a whole host."""


@dataclass(frozen=True)
class Host:
    """What the text depends on: facts of the host's nginx, never the name of its distribution.

    C(version) and C(openssl) are tuples of integers; a host without nginx is taken for a current one. The default
    servers of C(taken_listens), and the directives of the http level in C(taken_directives), are somebody else's.
    """

    version: tuple[int, ...] = (99,)
    openssl: tuple[int, ...] = (99,)
    ipv6: bool = True
    taken_listens: tuple[str, ...] = ()
    taken_directives: tuple[str, ...] = ()

    def listens(self, port: int) -> list[str]:
        """Return the addresses, all of a port, at which the default server can be ours."""
        candidates = {f"0.0.0.0:{port}": str(port), **({f"[::]:{port}": f"[::]:{port}"} if self.ipv6 else {})}
        return [written for address, written in candidates.items() if address not in self.taken_listens]

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


def base(settings: Mapping[str, t.Any], host: Host) -> dict[str, str]:
    """Return what a host has once, whatever its sites are.

    :param settings: the options of C(nginx_publish) that are named in SETTINGS.
    :returns: path inside the generation -> text.
    """
    texts = {name: _environment().get_template(f"{name}.j2").render(_common(settings, host)) for name in _FILES}
    own = {words[0] for depth, words, _line in statements(settings["extra_config"]) if depth == 0}
    for name in _HTTP_LEVEL:
        texts[name] = _without(texts[name], own.union(host.taken_directives) - _REPEATED)
    return texts


def scope_files(scope: str, upstreams: Sequence[Mapping[str, t.Any]], sites: Sequence[Mapping[str, t.Any]] = ()) -> dict[str, str]:
    """Return what the sites of a scope have at the http level: a file, or none where they have nothing there.

    :param upstreams: complete upstreams, as L(upstreams.normalise_upstreams) returns them.
    :param sites: complete sites.
    :returns: path inside the generation -> text.
    """
    promises = [site for site in sites if site["own_promise"] and site["tls"]]
    if not upstreams and not promises:
        return {}
    return {f"scopes/{scope}.conf": _environment().get_template("scope.conf.j2").render(scope=scope, upstreams=upstreams, promises=promises)}


def site_files(
    sites: Sequence[Mapping[str, t.Any]],
    apps: Sequence[Mapping[str, t.Any]],
    host: Host,
    settings: Mapping[str, t.Any],
    variables: Mapping[str, t.Any] | None = None,
    resolve: Callable[[str], str] = str,
    scope: str = layout.NGINX_SCOPE,
) -> dict[str, str]:
    """Return a file for each site.

    :param sites: complete sites, as L(sites.normalise_sites) returns them.
    :param apps: complete apps, of which sites name some.
    :param variables: the play's variables, for templates of somebody's own; looking one up templates it.
    :param resolve: makes a path absolute that was written beside the playbook.
    :returns: path inside the generation -> text.
    :raises PorticoError: when a template of somebody's own does not make whole directives.
    """
    template = _environment().get_template("site.conf.j2")
    common = {**_common(settings, host), "scope": scope}
    sockets = {app["name"]: layout.app_socket(app["name"]) for app in apps}
    files = {}
    for site in sites:
        values = {**common, "site": site, "upstreams": _upstreams(site, sockets)}
        if site["template"] is None:
            text = template.render(values)
        else:
            text = own_templates.render(site, resolve(site["template"]), _environment(), values, variables or {})
        files[f"sites/{site['name']}.conf"] = text
    return files


def once_at_http_level() -> set[str]:
    """Return the directives of the http level that we say, and that can be said once only."""
    texts = base({"http_port": 80, "https_port": 443, "extra_config": ""}, Host()).items()
    return {found for name, text in texts if name in _HTTP_LEVEL for found in re.findall(r"^(?: {4})?([a-z_]+) [^{\n]*;$", text, re.MULTILINE)} - _REPEATED


def _common(settings: Mapping[str, t.Any], host: Host) -> dict[str, t.Any]:
    return {"host": host, "acme_webroot": layout.ACME_WEBROOT, **settings}


def _upstreams(site: Mapping[str, t.Any], sockets: Mapping[str, str]) -> dict[str, str]:
    """Return the apps that a site names, app to socket."""
    named = dict.fromkeys(location["target"] for location in site["locations"] if location["does"] == "app")
    return {name: sockets[name] for name in named}


def _without(text: str, names: Iterable[str]) -> str:
    """Take the directives of one line that have these names out of a text."""
    taken = "|".join(re.escape(name) for name in sorted(names))
    return re.sub(rf"^(?: {{4}})?(?:{taken}) [^{{}}\n]*;\n", "", text, flags=re.MULTILINE) if taken else text


def token(value: t.Any) -> Markup:
    """Return a value as nginx reads it: one token, or several for a list.

    :raises ValueError: for a value that no token can carry.
    :raises jinja2.UndefinedError: for a name that nothing has.
    """
    if isinstance(value, Markup):
        return value
    if isinstance(value, Undefined):
        str(value)
    if isinstance(value, bool):
        return Markup("on" if value else "off")
    if isinstance(value, (list, tuple)):
        return Markup(" ").join(token(each) for each in value)
    if not isinstance(value, (str, int)):
        raise ValueError(f"{value!r} cannot be written into nginx's configuration")
    text = str(value)
    if "\0" in text or len(text.encode()) > LONGEST_TOKEN:
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


def _level(text: str, level: int) -> Markup:
    """Return directives of ours, a line each, in a block of that depth.

    None of them has a line break in it, so that it need not be read as nginx reads it, which takes time for a thousand sites.
    """
    return Markup("".join(f"{'    ' * level}{line}\n" for line in text.splitlines()))


@pass_context
def _finalize(_context: object, value: t.Any) -> Markup:
    """Make a token of whatever an expression is. For the context's sake jinja2 does it at run time, to constants too."""
    return token(value)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # A run has one collection: whether a file of it has changed need not be asked for each site.
        auto_reload=False,
    )
    environment.filters["bare"] = bare
    environment.filters["level"] = _level
    environment.filters["indented"] = lambda text, level: Markup(indented(text, level).removesuffix("\n"))
    return environment
