# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The lists of certificates: each alone, and against what the sites want."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ansible_collections.portico.web.plugins.plugin_utils import certificates, overrides, own_certificates, sites
from ansible_collections.portico.web.plugins.plugin_utils.controller import ReadText
from ansible_collections.portico.web.plugins.plugin_utils.entries import Entry


def check(variables: Mapping[str, t.Any], given: Mapping[str, t.Any], read_text: ReadText) -> None:
    """Check the settings of certbot and the lists of certificates that are there.

    :param variables: the play's variables; looking one up templates it.
    :param given: those of certbot among them.
    :param read_text: returns the text of a file on the controller, decrypted.
    :raises PorticoError: at the first mistake.
    """
    settings = certificates.check_settings(given)
    if "certbot_overrides" in given:
        # Before the list that is made of them, so that what is wrong with one is told where somebody wrote it.
        _check_certificates("certbot_overrides", _overridden(variables), settings, read_text)
    if "certbot_certificates" in given:
        _check_certificates("certbot_certificates", given["certbot_certificates"], settings, read_text)


def _overridden(variables: Mapping[str, t.Any]) -> list[Entry]:
    """Return the certificates for which something differs, as they are with that."""
    given = overrides.normalise_overrides(variables["certbot_overrides"])
    if not given:
        # Without any, what the sites want is all there is to say.
        return []
    names = {each["name"] for each in given}
    wanted = sites.wanted_certificates(variables["nginx_sites"] if "nginx_sites" in variables else [])
    return [each for each in overrides.with_overrides(wanted, given) if each["name"] in names]


def _check_certificates(variable: str, given: object, settings: certificates.Settings, read_text: ReadText) -> None:
    wanted = certificates.normalise_certificates(given, variable)
    certificates.host_entries(wanted, settings, variable)
    for certificate in wanted:
        if certificate["issuer"] == "own":
            own_certificates.load(certificate, read_text, variable)
