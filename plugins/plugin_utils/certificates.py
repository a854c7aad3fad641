# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The list of certificates and the settings beside it: checked, complete, ready for the host."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ansible_collections.portico.web.plugins.plugin_utils import entries, formats, own_certificates
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError, did_you_mean, problem, shown

SERVERS = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
"""The CAs that have a name (https://letsencrypt.org/docs/staging-environment/)."""

_MOST_DOMAINS = 100
"""What Let's Encrypt puts into one certificate (https://letsencrypt.org/docs/rate-limits/)."""


@dataclass(frozen=True)
class Settings:
    """How certificates are obtained, ready for the host."""

    server: str
    """The URL of the CA's directory."""
    trusted: bool
    """Whether visitors trust the CA; if not, nothing permanent may be promised to them."""
    email: str | None
    ca_bundle: str | None
    """The text of the PEM bundle with which the host verifies the CA's own server."""


def normalise_certificates(certificates: object, variable: str = "certbot_certificates") -> list[dict[str, t.Any]]:
    """Return the certificates complete and checked, each with name and domains.

    :raises PorticoError: at the first mistake.
    """
    described = entries.options("certbot_certificate", "certificates")
    complete = entries.normalise(variable, certificates, described, {"name": formats.file_name, "domains": domain}, secret=own_certificates.SECRET)
    for certificate in complete:
        domains = certificate["domains"]
        twins = [name for at, name in enumerate(domains) if name in domains[:at]]
        why = None
        if not domains:
            why = "is empty. Write at least one host name."
        elif twins:
            raise problem(variable, certificate["name"], "domains", twins[0], "stands there twice. Write each name once.")
        elif len(domains) > _MOST_DOMAINS:
            why = f"has {len(domains)} names, and a certificate has {_MOST_DOMAINS} at most. Make several of it."
        if why:
            raise problem(variable, certificate["name"], "domains", domains, why)
    return complete


def domain(value: str) -> str:
    """Return a host name that a CA can prove over HTTP (RFC 8555, section 8.3), in small letters."""
    if value.startswith("*."):
        raise ValueError("is a wildcard, which is only proved through DNS, and Portico proves names through HTTP. Write each name in full.")
    if _is_address(value):
        raise ValueError("is an address, and certificates are obtained for names. Write a host name.")
    name = formats.host_name(value)
    if "_" in name:
        raise ValueError("has an underscore, and no CA signs that. Use a name with letters, digits and hyphens.")
    return name


def settings(server: str | None = None, email: str | None = None, ca_bundle: str | None = None) -> Settings:
    """Return the settings complete and checked; what is None or empty is not set.

    :param ca_bundle: the path of a file on the controller.
    :raises PorticoError: at the first mistake.
    """
    url = _setting("certbot_server", server or "letsencrypt", _server)
    return Settings(
        server=url,
        trusted=url != SERVERS["staging"],
        email=_setting("certbot_email", email, _email) if email else None,
        ca_bundle=_setting("certbot_ca_bundle", ca_bundle, _bundle) if ca_bundle else None,
    )


def check_settings(variables: Mapping[str, t.Any]) -> None:
    """Check the role's variables that are no list, as far as they are there.

    :raises PorticoError: at the first mistake.
    """
    settings(*(variables.get(f"certbot_{key}") for key in ("server", "email", "ca_bundle")))


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _setting(variable: str, value: object, form: t.Callable[[str], str]) -> str:
    if not isinstance(value, str):
        raise PorticoError(f"{variable}: {shown(value)} is not text. Write one text.")
    try:
        return form(formats.printable(str(value)))
    except ValueError as error:
        raise PorticoError(f"{variable}: {shown(value)} {error}") from error


def _server(value: str) -> str:
    if value in SERVERS:
        return SERVERS[value]
    if "://" not in value:
        raise ValueError(f"is neither the name of a CA nor a URL. {did_you_mean(value, [*SERVERS, 'https://...'])}")
    if not value.startswith("https://"):
        raise ValueError("is not encrypted, and ACME is spoken over HTTPS alone. Write https://.")
    try:
        parts = urlsplit(value)
        valid = bool(parts.hostname) and parts.port != 0 and not parts.username and not re.search(r"[\s\"'\\#]", value)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("is not the URL of an ACME directory. Write https://HOST/PATH, without user, spaces or quotes.")
    return value


def _email(value: str) -> str:
    if not re.fullmatch(r"[^@\s,;<>\"']+@[^@\s,;<>\"']+\.[^@\s,;<>\"'.]+", value) or value.startswith("-"):
        raise ValueError("is not a mail address. Write one, such as ops@example.com, without a name around it.")
    return value


def _bundle(value: str) -> str:
    """Return the text of a PEM bundle on the controller."""
    path = os.path.expanduser(value)
    if not os.path.isabs(path):
        raise ValueError('is not an absolute path on the controller. Begin it with "{{ playbook_dir }}/" if the file lies beside the playbook.')
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ValueError(f"cannot be read on the controller: {why}. Give the path of a PEM file with the CA's certificates.") from error
    # The bundle becomes a file that everybody on the host may read.
    if "PRIVATE KEY-----" in text:
        raise ValueError("has a private key in it. Give a file that has only the CA's certificates.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError("is not a file with PEM certificates. Give the CA's certificates in PEM.") from error
    return text
