# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What differs for single certificates: laid by name over those that the sites want."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Sequence

from ansible_collections.portico.web.plugins.plugin_utils import entries, formats, own_certificates, sites
from ansible_collections.portico.web.plugins.plugin_utils.entries import Entry, did_you_mean, problem


_VARIABLE = "certbot_overrides"


def normalise_overrides(overrides: object, variable: str = _VARIABLE) -> list[Entry]:
    """Return the overrides checked, each with its name and those keys of a certificate that it gives, and no others.

    What the keys mean together is checked when they are part of a certificate.

    :raises PorticoError: at the first mistake.
    """
    described = {
        key: option if key == "name" else {each: value for each, value in option.items() if each not in ("default", "required")}
        for key, option in entries.options("certbot_certificate", "certificates").items()
    }
    forms = {"name": formats.file_name, "domains": sites.server_name}
    complete = entries.normalise(variable, overrides, described, forms, secret=own_certificates.SECRET)
    return [{key: value for key, value in entry.items() if value is not None} for entry in complete]


def with_overrides(wanted: Sequence[Entry], overrides: Iterable[Entry], variable: str = _VARIABLE) -> list[Entry]:
    """Return the certificates with what differs for them, and after them those that no site wants.

    :param wanted: what L(sites.wanted_certificates) returns.
    :param overrides: what L(normalise_overrides) returns.
    :raises PorticoError: for a name that no site wants, unless its domains are there too.
    """
    named = {certificate["name"]: certificate for certificate in wanted}
    merged = dict(named)
    for override in overrides:
        name = override["name"]
        if name not in named and "domains" not in override:
            why = f"is no certificate that a site wants, and there are no domains to make it one of its own. {did_you_mean(name, named)}"
            raise problem(variable, name, "name", name, why)
        merged[name] = {"name": name, "domains": [], "issuer": "acme", **named.get(name, {}), **override}
    return list(merged.values())
