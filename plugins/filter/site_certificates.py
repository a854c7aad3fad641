# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From sites to the certificates that they want."""

from __future__ import annotations

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.overrides import normalise_overrides, with_overrides
from ansible_collections.portico.web.plugins.plugin_utils.sites import wanted_certificates


def site_certificates(sites: object, overrides: object = None) -> list[dict[str, t.Any]]:
    """Return one certificate for each that the sites name, for all the host names it is to be valid for.

    :param overrides: what differs for single certificates, by name.
    """
    try:
        return with_overrides(wanted_certificates(sites), normalise_overrides([] if overrides is None else overrides))
    except PorticoError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The collection's filters."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"site_certificates": site_certificates}
