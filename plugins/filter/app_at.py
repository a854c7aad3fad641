# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One app out of a list, at a version."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.portico.web.plugins.plugin_utils.apps import app_at as _app_at
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError


def app_at(apps: object, name: object, version: object = None, path: str | None = None, archive: str | None = None) -> list[dict[str, t.Any]]:
    """Return a list of the one app, with another version, folder or archive for its source."""
    try:
        return [_app_at(apps, str(name), version, path, archive)]
    except PorticoError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The collection's filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"app_at": app_at}
