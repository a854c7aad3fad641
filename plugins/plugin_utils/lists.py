# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All of Portico's lists at once: the rules between them, and the names of the variables themselves."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from ansible.module_utils.common.yaml import yaml_load

from ansible_collections.portico.web.plugins.plugin_utils import named, repositories, sites, streams
from ansible_collections.portico.web.plugins.plugin_utils.controller import ReadText
from ansible_collections.portico.web.plugins.plugin_utils.entries import Entry, PorticoError, distance
from ansible_collections.portico.web.plugins.plugin_utils.named import Named

_LETTERS = 2
"""A name that is this near to one of ours is taken for a slip."""


@lru_cache(maxsize=1)
def variables_of_ours() -> frozenset[str]:
    """Return the names of all variables of the collection's roles, from their defaults and their argument specs."""
    roles = Path(__file__).parents[2] / "roles"
    names: set[str] = set()
    for defaults in roles.glob("*/defaults/main.yml"):
        names.update(yaml_load(defaults.read_text(encoding="utf-8")))
    for spec in roles.glob("*/meta/argument_specs.yml"):
        for entry_point in yaml_load(spec.read_text(encoding="utf-8"))["argument_specs"].values():
            names.update(entry_point.get("options") or {})
    return frozenset(names)


def refuse_near_misses(names: Iterable[str]) -> None:
    """Refuse a variable whose name is nearly one of ours.

    :raises PorticoError: naming both.
    """
    ours = variables_of_ours()
    for name in sorted(map(str, names)):
        if name in ours or name.startswith("_"):
            continue
        meant = next((each for each in sorted(ours) if distance(name, each, _LETTERS) <= _LETTERS), None)
        if meant:
            raise PorticoError(
                f'The variable "{name}" is not one of portico.web, but nearly "{meant}". '
                f'If you meant "{meant}", correct it; if it is yours, give it a name that is less alike.'
            )


def checked_apps(given: object, resolve: Callable[[str], str] | None = None, variable: str = "gunicorn_apps") -> list[Entry]:
    """Return the apps complete and checked; where L(resolve) is given, their folders on the controller too.

    :param resolve: makes a path on the controller absolute that was written beside the playbook.
    :raises PorticoError: at the first mistake.
    """
    if given == []:
        return []
    # Here, because Ansible compiles at every run what of a collection is imported, and sites alone need none of it.
    from ansible_collections.portico.web.plugins.plugin_utils import apps

    known = apps.normalise_apps(given, variable=variable)
    if resolve:
        apps.check_folders(known, resolve, variable=variable)
    return known


@dataclass(frozen=True)
class Checked:
    """What a check has found: the lists that were there, and what they say, complete."""

    names: list[str] = field(default_factory=list)
    apps: list[Entry] | None = None
    """None where no list says which apps there are."""
    named: Named | None = None
    sites: list[Entry] | None = None
    streams: list[Entry] | None = None


def check(variables: Mapping[str, t.Any], resolve: Callable[[str], str], read_text: ReadText) -> Checked:
    """Check the lists that are there, each alone and against the others.

    :param variables: the play's variables; looking one up templates it.
    :param resolve: makes a path on the controller absolute that was written beside the playbook.
    :param read_text: returns the text of a file on the controller, decrypted.
    :raises PorticoError: at the first mistake.
    """
    of_sites = {key: f"nginx_{key}" for key in named.LISTS}
    names = [name for name in ("gunicorn_apps", "nginx_apps", *of_sites.values(), "nginx_sites", "nginx_streams", "certbot_overrides", "certbot_certificates") if name in variables]
    known_apps = wanted_sites = wanted_streams = None
    # In this order, because the later lists are often derived from the earlier ones: a mistake is told
    # where it was made, and not where it came out.
    for name in ("gunicorn_apps", "nginx_apps"):
        if name in variables:
            known_apps = checked_apps(variables[name], resolve, name)
    known = named.normalise({key: variables[name] for key, name in of_sites.items() if name in variables})
    if "nginx_sites" in variables:
        wanted_sites = sites.normalise_sites(variables["nginx_sites"], known_apps or [], named=known)
        sites.read_files(wanted_sites, resolve, read_text)
    if "nginx_streams" in variables:
        wanted_streams = streams.normalise_streams(variables["nginx_streams"], wanted_sites, known)
    settings = {name.removeprefix("nginx_"): variables[name] for name in variables_of_ours() if name.startswith("nginx_") and name in variables}
    sites.check_settings(settings)
    sites.check_together(settings)
    repositories.asked(repositories.normalise(settings.get("repository")), read_text)
    of_certbot = {name: variables[name] for name in variables_of_ours() if name.startswith("certbot_") and name in variables}
    if of_certbot:
        # Here, because Ansible compiles at every run what of a collection is imported, and sites alone need none of it.
        from ansible_collections.portico.web.plugins.plugin_utils import certificate_lists

        certificate_lists.check(variables, of_certbot, read_text)
    return Checked(names, known_apps, known, wanted_sites, wanted_streams)
