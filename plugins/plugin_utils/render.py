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

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template, Undefined, pass_context
from markupsafe import Markup

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.module_utils.lexer import LONGEST_TOKEN, indented, statements
from ansible_collections.portico.web.plugins.plugin_utils import access, agents, backends, caches, entries, guards, limits, moves, own_templates, pages, proxies, streams, tls_profiles, urls
from ansible_collections.portico.web.plugins.plugin_utils.named import Named

_TEMPLATES = Path(__file__).parents[2] / "roles" / "nginx" / "templates"
_OF_EVERY_SITE = re.compile(r'^\{% include "((?:listen|certificate|promises|settings|guards|location|location_files|spoken|verified|aliases)\.conf\.j2)" %\}\n', re.MULTILINE)
_OF_EVERY_DICT = frozenset(dir(dict))
_NEEDS_NO_QUOTES = re.compile(r"[^\s;{}\"'\\#$]+")

# One file a concern, in the order of their meaning for a reader; a site has a file of its own.
_FILES = (
    *("nginx.conf", "tls.conf", "visitors.conf", "maps.conf", "logs.conf", "headers.conf", "files.conf"),
    *("forwarded.conf", "proxy.conf", "fastcgi.conf", "grpc.conf", "uwsgi.conf"),
    *("acme.conf", "pages.conf", "http.conf", "listens.conf", "listens-tls.conf", "default.conf"),
)
_REPEATED = {"include", "add_header", "set_real_ip_from", "log_format"}
"""Directives that others may say as well as we: nginx does what all of them say."""
_HTTP_LEVEL = ("nginx.conf", "tls.conf", "visitors.conf", "logs.conf")

_BROTLI = frozenset({"ngx_http_brotli_filter_module", "ngx_http_brotli_static_module"})

_LEFT_TO_INCLUDED = {"resolver", "resolver_timeout", "client_header_timeout"}
"""Directives that nginx goes on without, and that a file may say which somebody includes at the http level."""

_STAPLING = re.compile(r"^\s*include portico/certificates/\S+/stapling\*\.conf;\n", re.MULTILINE)
_STAPLING_ONCE = {"ssl_stapling", "ssl_stapling_verify", "ssl_trusted_certificate"}
"""What a server block may say once, and what lies beside a certificate says."""

_TOLD_TO_SITES = ("brotli", "maintenance", "pages", "told")
"""What our own template of a site sees of what holds for all of them: as little as may be, so that much can be rendered before the host has answered."""

SETTINGS = ("http_port", "https_port", "trusted_proxies", "trusted_header", "proxy_protocol", "tls_profile", "http3", "sandbox", "resolvers", "repository", "modules", "access_log", "extra_config")
"""The options of nginx_publish that there is one of for a whole host."""


class Socket(t.NamedTuple):
    """Where nginx listens, as C(listen) has it, and whether a proxy there says first who asks (PROXY protocol)."""

    address: str
    is_proxied: bool


@dataclass(frozen=True)
class Host:
    """What the text depends on: facts of the host's nginx, never the name of its distribution.

    C(version) and C(openssl) are tuples of integers; a host without nginx is taken for a current one. The default
    servers of C(taken_listens), and the directives of the http level in C(taken_directives), are somebody else's.
    """

    version: tuple[int, ...] = (99,)
    openssl: tuple[int, ...] = (99,)
    ipv6: bool = True
    http3: bool = True
    nameservers: tuple[str, ...] = ()
    modules: frozenset[str] = frozenset()
    taken_listens: tuple[str, ...] = ()
    taken_directives: tuple[str, ...] = ()
    is_vendors: bool = False
    """Whether the package is that of nginx's vendor, whose modules nobody loads but who uses them: C(loads) has their files."""
    loads: tuple[str, ...] = ()

    def sockets(self, port: int, proxy_protocol: bool) -> list[Socket]:
        """Return where nginx listens at a port.

        Whoever is on the host itself, as the certificates' keeper is, speaks no PROXY protocol: it finds sockets of its own.
        """
        found = [Socket(address, proxy_protocol) for address in self.addresses(port)]
        if proxy_protocol:
            found += [Socket(f"{address}:{port}", False) for address in ("127.0.0.1", *(["[::1]"] if self.ipv6 else []))]
        return found

    def default_sockets(self, port: int, proxy_protocol: bool) -> list[Socket]:
        """Return those at which the default server can be ours."""
        return [socket for socket in self.sockets(port, proxy_protocol) if (socket.address if ":" in socket.address else f"0.0.0.0:{socket.address}") not in self.taken_listens]

    def addresses(self, port: int, address: str | None = None) -> list[str]:
        """Return all addresses of a port, or the one, as C(listen) has them."""
        if address is not None:
            return [f"[{address}]:{port}" if ":" in address else f"{address}:{port}"]
        return [str(port), *([f"[::]:{port}"] if self.ipv6 else [])]

    @property
    def resolves_upstreams(self) -> bool:
        """Since 1.27.3 nginx looks up again the names of an upstream's servers, which was for its paying users before."""
        return self.version >= (1, 27, 3)

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


def base(settings: Mapping[str, t.Any], host: Host, has_streams: bool = False) -> dict[str, str]:
    """Return what a host has once, whatever its sites are.

    :param settings: the options of C(nginx_publish) that are named in SETTINGS.
    :param has_streams: whether somebody on it has streams.
    :returns: path inside the generation -> text.
    """
    common = {**_common(settings, host), "streams": has_streams}
    texts = {name: _environment().get_template(f"{name}.j2").render(common) for name in (*_FILES, *(["streams.conf"] if has_streams else []))}
    page = _environment().get_template("page.html.j2")
    texts.update({f"pages/{name}.html": page.render(page=each) for name, each in pages.standard().items()})
    taken = _taken(common["extra_config"], host)
    if "include" in taken:
        taken |= _LEFT_TO_INCLUDED
    for name in _HTTP_LEVEL:
        # Outside of the http block nobody else says anything that takes the place of ours.
        texts[name] = _without(texts[name], taken - _REPEATED, " {4}" if name == "nginx.conf" else "(?: {4})?")
    return texts


def scope_files(
    scope: str,
    named: Named,
    sites: Sequence[Mapping[str, t.Any]] = (),
    passwords: Mapping[str, str] | None = None,
    host: Host | None = None,
    settings: Mapping[str, t.Any] | None = None,
) -> dict[str, str]:
    """Return what the sites of a scope share: a file at the http level, if they have anything there, and the hashes of passwords.

    :param named: what the sites call by a name, as L(named.normalise) returns it.
    :param sites: complete sites.
    :param passwords: the files with hashes of passwords that the host has.
    :returns: path inside the generation -> text.
    """
    promises = [site for site in sites if site["own_promise"] and site["tls"]]
    closed = [site for site in sites if site["maintenance"]]
    levels = _levels(sites)
    counted = _by_name(limit for level in levels for limit in level["limits"] or [])
    files = access.password_files(scope, _by_name(level["access"] for level in levels if level["access"]), passwords or {})
    shared = {"upstreams": list(named["upstreams"].values()), "promises": promises, "closed": closed, "limits": [limits.counted(scope, limit) for limit in counted], "caches": list(_kept(scope, sites).values())}
    for site in sites:
        if site["moved"]:
            files[moves.file(scope, site)] = _environment().get_template("redirects.conf.j2").render(site=site, moves=moves.listed(site["moved"]))
    shared["moved"] = [(site["name"], moves.variable(scope, site), moves.file(scope, site)) for site in sites if site["moved"]]
    shared["slashes"] = [moves.slash(scope, site) for site in sites if site["trailing_slash"]]
    shared["unwelcome"] = [(site["name"], agents.variable(scope, site), agents.patterns(site)) for site in sites if site["refuse_agents"]]
    if any(shared.values()):
        files[f"scopes/{scope}.conf"] = _environment().get_template("scope.conf.j2").render(scope=scope, resolvers=_resolvers({**default_settings(), **(settings or {})}, host or Host()), **shared)
    return files


class Drafts(t.NamedTuple):
    """Sites' files that were rendered before the host had answered."""

    facts: Mapping[str, t.Any]
    """What was taken for granted of the host."""
    texts: Mapping[str, str]
    """A site's name -> the text of its file."""


def drafts(sites: Sequence[Mapping[str, t.Any]], apps: Sequence[Mapping[str, t.Any]], settings: Mapping[str, t.Any], scope: str = layout.NGINX_SCOPE) -> Drafts:
    """Render what hardly depends on the host, to be taken for the files of one of which the same holds, and for nothing where it is otherwise.

    It uses neither Ansible nor any file that is not the collection's own, so that it can be done while the host is asked.

    :param sites: complete sites, as L(sites.normalise_sites) returns them.
    :param apps: complete apps, of which sites name some.
    """
    expected = Host(modules=_BROTLI if "brotli" in settings["modules"] else frozenset())
    common = _common(settings, expected)
    kept, sockets = _kept(scope, sites), _sockets(apps)
    texts = {site["name"]: _of_sites().render(_values(site, common, scope, kept, sockets)) for site in sites if not (site["template"] or _looks_up(site))}
    # Of what there is once, all that takes long is to compile the templates.
    base(settings, expected)
    _environment().get_template("scope.conf.j2")
    return Drafts(_facts(common), texts)


def site_files(
    sites: Sequence[Mapping[str, t.Any]],
    apps: Sequence[Mapping[str, t.Any]],
    host: Host,
    settings: Mapping[str, t.Any],
    variables: Mapping[str, t.Any] | None = None,
    resolve: Callable[[str], str] = str,
    scope: str = layout.NGINX_SCOPE,
    drafted: Drafts | None = None,
) -> dict[str, str]:
    """Return a file for each site.

    :param sites: complete sites, as L(sites.normalise_sites) returns them.
    :param apps: complete apps, of which sites name some.
    :param variables: the play's variables, for templates of somebody's own; looking one up templates it.
    :param resolve: makes a path absolute that was written beside the playbook.
    :param drafted: what L(drafts) has returned for the same sites and apps.
    :returns: path inside the generation -> text.
    :raises PorticoError: when a template of somebody's own does not make whole directives.
    """
    common = _common(settings, host)
    kept, sockets = _kept(scope, sites), _sockets(apps)
    ready = drafted.texts if drafted and drafted.facts == _facts(common) else {}
    files = {}
    # What the http level says holds for all sites, and ours beside a certificate would count instead.
    said_for_all = bool(_taken(common["extra_config"], host) & _STAPLING_ONCE)
    for site in sites:
        if site["template"] is None:
            text = ready.get(site["name"]) or _of_sites().render(_values(site, common, scope, kept, sockets))
            says_it = _says_stapling(site["extra_config"] or "", 0)
        else:
            values = _values(site, common, scope, kept, sockets)
            text = own_templates.render(site, resolve(site["template"]), _environment(), {**common, **values}, variables or {})
            says_it = _says_stapling(text, 1)
        files[f"sites/{site['name']}.conf"] = _STAPLING.sub("", text) if says_it or said_for_all else text
    return files


def _values(site: Mapping[str, t.Any], common: Mapping[str, t.Any], scope: str, kept: Mapping[str, entries.Entry], sockets: Mapping[str, str]) -> dict[str, t.Any]:
    """Return what our own template of a site sees."""
    return {
        **{key: common[key] for key in (*_TOLD_TO_SITES, *(["resolvers"] if _looks_up(site) else []))},
        "scope": scope,
        "kept": kept,
        # Around a server block there is nobody who says who gets in.
        "around": guards.NONE,
        "site": site,
        "upstreams": _upstreams(site, sockets),
        "leads": [*([moves.variable(scope, site)] if site["moved"] else []), *([moves.slash(scope, site)["variable"]] if site["trailing_slash"] else [])],
        "unwelcome": agents.variable(scope, site) if site["refuse_agents"] else None,
    }


def _facts(common: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return all that the text of a site which looks up no name owes to its host, and to settings."""
    return {key: common[key] for key in _TOLD_TO_SITES}


def _looks_up(site: Mapping[str, t.Any]) -> bool:
    """Return whether nginx looks up a name for a site again and again."""
    return any(location["spoken"] and location["spoken"]["is_looked_up"] for location in site["locations"])


def _sockets(apps: Iterable[Mapping[str, t.Any]]) -> dict[str, str]:
    return {app["name"]: layout.app_socket(app["name"]) for app in apps}


def _taken(extra_config: str, host: Host) -> set[str]:
    """Return the directives of the http level that others say; of the form of a log, with its name."""
    said = [words for depth, words, _line in statements(extra_config) if depth == 0]
    return {words[0] for words in said}.union(host.taken_directives, (" ".join(words[:2]) for words in said if words[0] == "log_format"))


def _says_stapling(text: str, depth: int) -> bool:
    """Return whether a text of somebody's own says what a server block does with OCSP responses, or may do so in a file that it includes.

    :param depth: of the server block's own directives.
    """
    said = [words for at, words, _line in statements(text) if at == depth]
    return any(words[0] in _STAPLING_ONCE or (words[0] == "include" and not words[-1].startswith("portico/")) for words in said)


def stream_files(streams_of_scope: Sequence[Mapping[str, t.Any]], host: Host, settings: Mapping[str, t.Any] | None = None) -> dict[str, str]:
    """Return a file for each stream.

    :param streams_of_scope: complete streams, as L(streams.normalise_streams) returns them.
    :returns: path inside the generation -> text.
    """
    if not streams_of_scope:
        return {}
    template = _environment().get_template("stream.conf.j2")
    return {f"{streams.FOLDER}{stream['name']}.conf": template.render(stream=stream, resolvers=_resolvers({**default_settings(), **(settings or {})}, host), addresses=host.addresses(stream["port"], stream["address"])) for stream in streams_of_scope}


def _levels(sites: Iterable[Mapping[str, t.Any]]) -> list[Mapping[str, t.Any]]:
    return [level for site in sites for level in (site, *site["locations"])]


def _kept(scope: str, sites: Iterable[Mapping[str, t.Any]]) -> dict[str, entries.Entry]:
    """Return the caches that sites name, name to what the http level has of each."""
    named = _by_name(level["cache"] for level in _levels(sites) if level["cache"] and level["cache"]["name"] != "none")
    return {cache["name"]: caches.kept(scope, cache) for cache in named}


def _by_name(found: Iterable[Mapping[str, t.Any]]) -> list[Mapping[str, t.Any]]:
    """Return each of several entries once, in the order of their names."""
    named = {entry["name"]: entry for entry in found}
    return [named[name] for name in sorted(named)]


@lru_cache(maxsize=1)
def default_settings() -> dict[str, t.Any]:
    """Return what holds for a host for which nobody says anything else."""
    described = entries.options("nginx_publish")
    return {key: described[key]["default"] for key in SETTINGS}


def once_at_http_level() -> set[str]:
    """Return the directives of the http level that we say, and that can be said once only."""
    texts = base({"trusted_proxies": ["192.0.2.1"]}, Host()).items()
    return {found for name, text in texts if name in _HTTP_LEVEL for found in re.findall(r"^(?: {4})?([a-z_]+) [^{\n]*;$", text, re.MULTILINE)} - _REPEATED


def _common(settings: Mapping[str, t.Any], host: Host) -> dict[str, t.Any]:
    complete = {**default_settings(), **settings}
    is_read = bool(complete["trusted_proxies"]) and not complete["proxy_protocol"]
    told = proxies.told(complete["trusted_header"], is_read)
    brotli = host.modules >= _BROTLI and "brotli" in complete["modules"]
    profile = tls_profiles.PROFILES[complete["tls_profile"]]
    tls = profile if host.has_hybrid_key_exchange else profile.without_hybrid()
    families = {family: [(backends.param(name), value) for name, value in told] for family in backends.WITH_PARAMS}
    return {
        "host": host,
        "tls": tls,
        "guideline": tls_profiles,
        "brotli": brotli,
        "told": {"proxy": told, "grpc": told, **families},
        "acme_webroot": layout.ACME_WEBROOT,
        "maintenance": layout.MAINTENANCE,
        "apps_folder": layout.APPS,
        **complete,
        "pages": pages.STATUSES,
        "resolvers": _resolvers(complete, host),
        "trusted_proxies": proxies.networks(complete["trusted_proxies"]),
    }


def _resolvers(settings: Mapping[str, t.Any], host: Host) -> list[str]:
    """Return whom nginx asks for names, as C(resolver) has them; nobody where that is said in a text of somebody's own."""
    if "resolver" in host.taken_directives or any(depth == 0 and words[0] == "resolver" for depth, words, _line in statements(settings["extra_config"])):
        return list(map(urls.resolver, settings["resolvers"]))
    asked = list(map(urls.resolver, settings["resolvers"])) or list(host.nameservers)
    return [*asked, *(["ipv6=off"] if asked and not host.ipv6 else [])]


def _upstreams(site: Mapping[str, t.Any], sockets: Mapping[str, str]) -> dict[str, str]:
    """Return the apps that a site names, app to socket."""
    named = dict.fromkeys(location["target"] for location in site["locations"] if location["does"] == "app")
    return {name: sockets[name] for name in named}


def _without(text: str, names: Iterable[str], indent: str) -> str:
    """Take the directives of one line that have these names, and an indent, out of a text."""
    taken = "|".join(re.escape(name) for name in sorted(names))
    return re.sub(rf"^{indent}(?:{taken}) [^{{}}\n]*;\n", "", text, flags=re.MULTILINE) if taken else text


def token(value: t.Any) -> Markup:
    """Return a value as nginx reads it: one token, or several for a list.

    :raises ValueError: for a value that no token can carry.
    :raises jinja2.UndefinedError: for a name that nothing has.
    """
    if type(value) is str:
        return _token_of_text(value)
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
    return _token_of_text(str(value))


@lru_cache(maxsize=8192)
def _token_of_text(text: str) -> Markup:
    """Return a text as one token. A site's names stand in its file many times, and those of others in many files."""
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


def within(value: t.Any) -> Markup:
    """Return a value that stands in the middle of a token that is quoted already: C("$scheme://{{ rest | within }}").

    :raises ValueError: for a value that no token can carry.
    """
    token(value)
    return Markup(str(value).replace("\\", "\\\\").replace('"', '\\"'))


def _level(text: str, level: int) -> Markup:
    """Return directives of ours, a line each, in a block of that depth.

    None of them has a line break in it, so that it need not be read as nginx reads it, which takes time for a thousand sites.
    """
    return Markup("".join([f"{'    ' * level}{line}\n" for line in str.splitlines(text)]))


@pass_context
def _finalize(_context: object, value: t.Any) -> Markup:
    """Make a token of whatever an expression is. For the context's sake jinja2 does it at run time, to constants too."""
    return token(value)


class _Whole(FileSystemLoader):
    """Gives a template with what every site has in it in its place: for each that is included at run time, jinja2 makes a context anew.

    What few sites have stays an include, which costs nothing while nobody has it.
    """

    def get_source(self, environment: Environment, template: str) -> tuple[str, str, t.Any]:
        source, path, current = super().get_source(environment, template)
        return _OF_EVERY_SITE.sub(lambda found: self.get_source(environment, found[1])[0], source), path, current


class _Environment(Environment):
    """Looks for what a dictionary has before it looks for what every dictionary can; names that are both are looked for as ever."""

    def getattr(self, obj: t.Any, attribute: str) -> t.Any:
        if type(obj) is dict and attribute in obj and attribute not in _OF_EVERY_DICT:
            return obj[attribute]
        return super().getattr(obj, attribute)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = _Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # A run has one collection: whether a file of it has changed need not be asked for each site.
        auto_reload=False,
        # To find what never changes takes longer than it saves in one run.
        optimized=False,
    )
    environment.filters["bare"] = bare
    environment.filters["within"] = within
    environment.filters["level"] = _level
    environment.filters["indented"] = lambda text, level: Markup(indented(text, level).removesuffix("\n"))
    return environment


@lru_cache(maxsize=1)
def _of_sites() -> Template:
    """Return the template of a site's file. What C(finalize) has made a token, C(autoescape) need not look at, a hundred times for each site."""
    return _environment().overlay(loader=_Whole(_TEMPLATES), autoescape=False).get_template("site.conf.j2")
