# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Publish nginx's configuration: ask the host, render, compare, and send only what differs."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible_collections.portico.web.plugins.module_utils.generation import differences, digests, files_of, pack, streams_of, with_part
from ansible_collections.portico.web.plugins.plugin_utils import controller, entries, lists, locations, modules, named, proxies, render, repositories, sites, streams
from ansible_collections.portico.web.plugins.plugin_utils.action import SECONDS_FOR_APT, Meanwhile, PorticoAction, Templated, diffs
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError, problem

_CAS = "ca-certificates"
"""The package without which a host can verify no repository over TLS."""
_TURNS = 5
"""How often another run may come between our question and our order."""

Options = dict[str, t.Any]
State = dict[str, t.Any]


class ActionModule(PorticoAction):
    """One remote call where nothing differs, two where something does."""

    def _act(self, args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        options = entries.arguments("nginx_publish", args)
        known_apps, known, wanted_sites, wanted_streams = self._wanted(options, args, task_vars)
        packages = [*options["packages"], *modules.packages(options["modules"]), *(streams.PACKAGES if wanted_streams else [])]
        self._repository: str | None = None
        # The other scopes' settings are as unknown as the host: where they are not as ours, this was for nothing.
        drafting = self._meanwhile = Meanwhile(lambda: render.drafts(wanted_sites, known_apps, _own_settings(options), options["scope"]))
        for _turn in range(_TURNS):
            state = self._state(options, packages, task_vars)
            if options["state"] == "present":
                _refuse_to_take_over(state)
            their_streams = {name: there for name, there in streams_of(state["manifest"]).items() if name != options["scope"]}
            _refuse_shared(state, options["scope"], wanted_sites)
            streams.refuse_those_of_others(wanted_streams, their_streams)
            settings, owner = _settings(state, options)
            streams.refuse_ports_of_sites(wanted_streams, their_streams, settings)
            host = _host(state, settings)
            if options["state"] == "present":
                _refuse_what_it_cannot(state, host, settings, known, wanted_sites, bool(wanted_streams))
            scope = options["scope"]
            base = render.base(settings, host, bool(wanted_streams or their_streams))
            own = render.scope_files(scope, known, wanted_sites, state["passwords"], host, settings)
            own.update(render.site_files(wanted_sites, known_apps, host, settings, Templated(task_vars, self._templar), self._loader.path_dwim, scope, drafting.result()))
            own.update(render.stream_files(wanted_streams, host, settings))
            part: dict[str, t.Any] = {
                "sites": {site["name"]: site["server_names"] for site in wanted_sites},
                "certificates": sites.certificates(wanted_sites),
                "files": digests(own),
            }
            if wanted_streams:
                part["streams"] = streams.places(wanted_streams)
            once = {"owner": owner, "settings": settings if owner else {}, "files": digests(base)}
            order = {"host": once, "part": part if options["state"] == "present" else None}
            answer = self._publish(options, state, order, {**base, **own}, task_vars)
            if not answer.get("stale"):
                return self._result(answer, state)
        raise PorticoError(f"Other runs published to this host {_TURNS} times between the question and the order of this one. Run it again when they are done.")

    def _wanted(self, options: Options, args: Mapping[str, t.Any], task_vars: dict[str, t.Any]) -> tuple[list[entries.Entry], named.Named, list[entries.Entry], list[entries.Entry]]:
        """Return the apps, what sites call by a name, the sites, and the streams, complete and checked.

        :raises PorticoError: at the first mistake.
        """
        checked = self._check_lists(task_vars) if options["check_lists"] else lists.Checked()
        # What the check has been through is not gone through again.
        known_apps = lists.checked_apps(options["apps"]) if checked.apps is None or "apps" in args else checked.apps
        if options["state"] == "absent":
            return known_apps, named.normalise({}), [], []
        known = named.normalise({key: options[key] for key in named.LISTS})
        if checked.named is not None:
            known = {key: known[key] if key in args else checked.named[key] for key in known}
        if checked.sites is not None and not {"apps", "sites", *named.LISTS} & args.keys():
            wanted_sites = checked.sites
        else:
            wanted_sites = sites.normalise_sites(options["sites"], known_apps, named=known)
            sites.read_files(wanted_sites, self._loader.path_dwim, controller.reader(self._loader))
        if checked.streams is not None and not {"streams", "sites", *named.LISTS} & args.keys():
            wanted_streams = checked.streams
        else:
            wanted_streams = streams.normalise_streams(options["streams"], wanted_sites, known)
        sites.check_settings(options)
        sites.check_together(options)
        options["repository"] = repositories.normalise(options["repository"])
        return known_apps, known, wanted_sites, wanted_streams

    def _state(self, options: Options, packages: list[str], task_vars: dict[str, t.Any]) -> State:
        """Ask the host, and install what it lacks: the one thing that is not a transaction."""
        repository = repositories.asked(options["repository"], controller.reader(self._loader)) if options["state"] == "present" else None
        question = {"state": "asked", "packages": packages, "with_passwords": True, **({"repository": repository} if repository else {})}
        state = self._ask("nginx_generation", question, task_vars)
        if not state["sourced"] and _is_ours_to_say(state, options):
            self._source(repository, state, packages, task_vars)
            if not self._task.check_mode:
                state = self._ask("nginx_generation", question, task_vars)
        if options["state"] == "present" and state["unknown"] and not self._task.check_mode:
            # A repository may have been added since.
            self._run_module("ansible.builtin.apt", {"update_cache": True, "lock_timeout": SECONDS_FOR_APT}, task_vars)
            state = self._ask("nginx_generation", question, task_vars)
        if options["state"] == "present":
            # Before a repository is there, nobody knows what is in it.
            modules.refuse_unknown(options["modules"], [] if self._repository and self._task.check_mode else state["unknown"], state["vendors"])
        self._installed = state["missing"] if options["state"] == "present" else []
        if self._installed and not self._task.check_mode:
            self._install(self._installed, task_vars)
            state = self._ask("nginx_generation", question, task_vars)
        elif self._installed:
            # As if they were there; nginx itself cannot say anything of it yet.
            state["modules"] += modules.loaded_by(self._installed)
        return state

    def _source(self, repository: dict[str, t.Any] | None, state: State, packages: list[str], task_vars: dict[str, t.Any]) -> None:
        """Let nginx come from a repository, or from the distribution's again."""
        if repository:
            repositories.refuse_to_replace(state, packages)
            if _CAS in state["missing"] and not self._task.check_mode:
                self._install([_CAS], task_vars)
        self._repository = self._ask("nginx_repository", {"repository": repository} if repository else {}, task_vars)["url"]

    def _publish(self, options: Options, state: State, order: dict[str, t.Any], texts: dict[str, str], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        scope = options["scope"]
        wanted = with_part(state["manifest"], scope, order["host"], order["part"])
        common = {"scope": scope, "holder": self._who(task_vars)}
        if options["state"] == "absent" and not wanted["scopes"]:
            return self._ask("nginx_generation", {"state": "absent", **common}, task_vars)
        if not differences(state, wanted, scope):
            return {"changed": False, "generation": state["generation"]}
        # What the host has already, byte for byte, is not sent again.
        there = {path: known for path, known in files_of(state["manifest"]).items() if path not in state["drifted"]}
        news = {path: text for path, text in texts.items() if there.get(path) != files_of(wanted)[path]}
        return self._ask("nginx_generation", {"state": "published", "based_on": state["generation"], "texts": pack(news), "with_test": not (self._task.check_mode and modules.loaded_by(self._installed)), **order, **common}, task_vars)

    def _result(self, answer: dict[str, t.Any], state: State) -> dict[str, t.Any]:
        result = {key: answer[key] for key in ("changed", "generation", "tested", "files", "waited_for") if key in answer}
        result["changed"] = answer["changed"] or bool(self._installed) or self._repository is not None
        if self._repository is not None:
            result["repository"] = self._repository
        if self._installed:
            result["packages"] = self._installed
        result["warnings"] = _warnings(state, answer)
        if self._task.diff and answer["changed"]:
            result["diff"] = diffs(answer)
        return result


def _settings(state: State, options: Options) -> tuple[dict[str, t.Any], str | None]:
    """Return the http level's settings and the scope that they belong to: whoever set one that is not the default.

    :raises PorticoError: when two scopes set them.
    """
    defaults, own = render.default_settings(), _own_settings(options)
    there = state["manifest"]["host"]
    if own == defaults:
        if there["owner"] in (None, options["scope"]):
            return defaults, None
        return {**defaults, **there["settings"]}, there["owner"]
    if there["owner"] not in (None, options["scope"]):
        different = next(key for key in defaults if own[key] != defaults[key])
        raise PorticoError(
            f'nginx_{different}: what nginx has once for the whole host is set by the scope "{there["owner"]}" already, and "{options["scope"]}" sets it too. '
            "Set it in one of the two."
        )
    return own, options["scope"]


def _own_settings(options: Options) -> dict[str, t.Any]:
    """Return what the scope says of what there is once for the whole host."""
    defaults = render.default_settings()
    return {key: options[key] for key in defaults} if options["state"] == "present" else defaults


def _is_ours_to_say(state: State, options: Options) -> bool:
    """Return whether the scope may say what there is once for the whole host: no other one does.

    :raises PorticoError: when two scopes do.
    """
    _settings(state, options)
    return state["manifest"]["host"]["owner"] in (None, options["scope"])


def _refuse_what_it_cannot(state: State, host: render.Host, settings: dict[str, t.Any], known: named.Named, wanted: list[entries.Entry], has_streams: bool) -> None:
    version = ".".join(map(str, state["version"]))
    upstream = next((each["name"] for each in known["upstreams"].values() if each["resolve"]), None)
    if upstream and not host.resolves_upstreams:
        why = f"needs nginx 1.27.3 or newer, and this host's is {version}. Take it out, or give a single server in a site's proxy, which has backend.resolve."
        raise problem("nginx_upstreams", upstream, "resolve", True, why)
    site = upstream or next((site["name"] for site in wanted for location in site["locations"] if location["spoken"] and location["spoken"]["is_looked_up"]), None)
    said = "resolver" in state["strangers"]["directives"] or "resolver" in locations.said(settings["extra_config"])
    if site and not (host.nameservers or settings["resolvers"] or said):
        raise PorticoError(f'nginx_resolvers is needed for "{site}", which has resolve: this host has no server for names in /etc/resolv.conf. Say which one nginx asks.')
    if has_streams and state["strangers"]["streams"]:
        raise PorticoError(f"nginx_streams: /etc/nginx/{state['strangers']['streams']} of this host has a stream block of its own, and nginx takes one. Move what is in it to nginx_streams.")
    theirs = state["strangers"]["directives"]
    if settings["trusted_proxies"] and proxies.DIRECTIVES & theirs.keys():
        name = min(proxies.DIRECTIVES & theirs.keys())
        raise PorticoError(f"nginx_trusted_proxies has no effect on this host: /etc/nginx/{theirs[name]} says {name}, which counts instead. Take it out there, or leave nginx_trusted_proxies away.")
    if settings["http3"] and state["installed"] and not state["http3"]:
        raise PorticoError(f"nginx_http3: true needs nginx 1.25.0 or newer, built with HTTP/3, and this host's is {version} without it. Take it out, or say it only for hosts that can (Debian 13 is one).")


def _refuse_to_take_over(state: State) -> None:
    """Refuse a host on which somebody wrote an nginx.conf that does more than the packaged one."""
    lost = state["strangers"]["main"]
    if lost and not state["entered"]:
        raise PorticoError(
            f"/etc/nginx/nginx.conf of this host says what no other file says: {', '.join(lost)}. Portico puts its own in its place. "
            "Move these lines to a file in /etc/nginx/conf.d (http level) or /etc/nginx/modules-enabled (outside of it), so that they go on."
        )


def _refuse_shared(state: State, scope: str, wanted: list[entries.Entry]) -> None:
    """Refuse what another scope has on the host already: a site's name, or a name that it answers to."""
    others = {name: part["sites"] for name, part in state["manifest"]["scopes"].items() if name != scope}
    for site in wanted:
        for other, their_sites in others.items():
            if site["name"] in their_sites:
                raise problem("nginx_sites", site["name"], "name", site["name"], f'is a site of the scope "{other}" on this host. Choose another name.')
            for theirs, names in their_sites.items():
                for name in set(site["server_names"]) & set(names):
                    why = f'belongs to the site "{theirs}" of the scope "{other}" on this host. Give it to one of the two.'
                    raise problem("nginx_sites", site["name"], "server_names", name, why)


def _warnings(state: State, answer: dict[str, t.Any]) -> list[str]:
    found = []
    if state["upgrade"]:
        found.append("nginx {} is installed, and apt has {}, with what was mended since: apt-get install --only-upgrade nginx".format(*state["upgrade"]))
    if state["certbot_edits"]:
        lineages = ", ".join(state["certbot_edits"])
        found.append(f"certbot is set to edit nginx's files for {lineages}. It would edit published ones too, which the next run puts right. Give it the webroot plugin.")
    if answer.get("sandbox"):
        found.append(answer["sandbox"])
    if answer["changed"]:
        for address, path in state["strangers"]["default_servers"].items():
            found.append(f"/etc/nginx/{path} has the default server at {address}, so it answers there for names that no site has.")
        for name in sorted(state["strangers"]["directives"].keys() & render.once_at_http_level()):
            found.append(f"/etc/nginx/{state['strangers']['directives'][name]} says {name} at the http level, so it counts instead of Portico's.")
    return found


def _host(state: State, settings: dict[str, t.Any]) -> render.Host:
    theirs = {"nameservers": tuple(state["nameservers"]), "taken_listens": tuple(state["strangers"]["default_servers"]), "taken_directives": tuple(state["strangers"]["directives"])}
    if not state["installed"]:
        return render.Host(ipv6=state["ipv6"], is_vendors=state["vendors"], **theirs)
    loads = modules.files(settings["modules"], state["loadable"], state["modules"])
    loaded = frozenset(state["modules"]).union(map(modules.name_of, loads))
    return render.Host(tuple(state["version"]), tuple(state["openssl"]), state["ipv6"], state["http3"], modules=loaded, is_vendors=state["vendors"], loads=tuple(loads), **theirs)
