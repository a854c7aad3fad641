# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A site's file from a template of somebody's own: the same environment as ours, and what a play has at hand."""

from __future__ import annotations

import os
import traceback
import typing as t
from collections.abc import Mapping

from ansible.plugins.loader import filter_loader, test_loader
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, TemplateNotFound, TemplateSyntaxError, meta

from ansible_collections.portico.web.plugins.plugin_utils import formats
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError, problem


class _Plugins(dict):
    """Jinja's own filters or tests, and behind them Ansible's, each loaded when a template names it."""

    def __init__(self, own: Mapping[str, t.Any], loader: t.Any) -> None:
        super().__init__(own)
        self._loader = loader

    def __missing__(self, name: str) -> t.Any:
        plugin = self._loader.get(name)
        if plugin is None:
            raise KeyError(name)
        self[name] = plugin.j2_function
        return self[name]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or self._loader.get(name) is not None

    def get(self, name: str, default: t.Any = None) -> t.Any:
        return self[name] if name in self else default


def render(site: Mapping[str, t.Any], path: str, ours: Environment, values: Mapping[str, t.Any], variables: Mapping[str, t.Any]) -> str:
    """Return the text that a template makes for a site.

    :param ours: the environment of our own templates, which it may include.
    :param values: what our own templates see; a variable of the play with such a name is not seen.
    :raises PorticoError: naming the entry, the template, the line and the reason.
    """
    environment = ours.overlay(loader=ChoiceLoader([FileSystemLoader(os.path.dirname(path)), t.cast(FileSystemLoader, ours.loader)]))
    environment.filters = _Plugins(ours.filters, filter_loader)
    environment.tests = _Plugins(ours.tests, test_loader)

    def mistake(why: str) -> PorticoError:
        return problem("nginx_sites", site["name"], "template", site["template"], why)

    try:
        named = _variables(environment, os.path.basename(path)) - values.keys()
        text = environment.get_template(os.path.basename(path)).render({**{name: variables[name] for name in named if name in variables}, **values})
    except TemplateSyntaxError as error:
        raise mistake(f"is no template: {error.message} (line {error.lineno} of {error.filename or path}).") from error
    except TemplateNotFound as error:
        raise mistake(f"includes {error.name}, which is neither beside it nor one of Portico's.") from error
    except PorticoError:
        raise
    except Exception as error:
        # Whatever a filter of somebody's own can raise.
        raise mistake(f"fails in line {_line(error, path)}: {error}.") from error
    try:
        return formats.nginx_text(text if text.endswith("\n") else f"{text}\n")
    except ValueError as error:
        raise mistake(f"makes text that {error}") from error


def _variables(environment: Environment, name: str) -> set[str]:
    """Return the names that a template looks up, and those that it includes by name."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        source, _path, _current = t.cast(ChoiceLoader, environment.loader).get_source(environment, each)
        tree = environment.parse(source, filename=each)
        found |= meta.find_undeclared_variables(tree)
        waiting += [other for other in meta.find_referenced_templates(tree) if other]
    return found


def _line(error: BaseException, path: str) -> int | str:
    """Return the line of a template in which something was raised; jinja2 puts it into the traceback."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return lines[-1] if lines and lines[-1] else "?"
