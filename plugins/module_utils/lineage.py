# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a lineage of certbot is, read from its own files, and what keeps it from being the wanted one.

Nothing here asks certbot: its words change from version to version. The certificate says whom it is for and how
long, the renewal configuration says which CA renews it, and openssl reads the former on every host.
"""

from __future__ import annotations

import os
import re
import ssl
import typing as t
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ansible_collections.portico.web.plugins.module_utils import layout

LETSENCRYPT = "/etc/letsencrypt"
LIVE = LETSENCRYPT + "/live"
RENEWAL = LETSENCRYPT + "/renewal"

Run = Callable[[list[str]], tuple[int, str, str]]
"""Runs a command and returns its exit code, output and error output."""


@dataclass(frozen=True)
class Certificate:
    """What an X.509 certificate says."""

    domains: frozenset[str]
    not_after: int
    """The end of its validity, in seconds since 1970."""
    public_key: str
    """In PEM."""


@dataclass(frozen=True)
class Lineage:
    """A lineage as it is on the host; what is not there, or cannot be read, is None."""

    certificate: Certificate | None = None
    server: str | None = None
    """The directory URL of the CA that renews it."""
    key_matches: bool = False
    known: bool = False
    """Whether certbot has a renewal configuration for it."""


def parse_certificate(text: str) -> Certificate | None:
    """Return what openssl said about a certificate.

    :param text: the output of C(openssl x509 -noout -ext subjectAltName -enddate -pubkey).
    :returns: None where the text is not that.
    """
    end = re.search(r"^notAfter=(.+)$", text, re.MULTILINE)
    key = re.search(r"^-----BEGIN PUBLIC KEY-----$.*?^-----END PUBLIC KEY-----$", text, re.MULTILINE | re.DOTALL)
    if end is None or key is None:
        return None
    names = re.search(r"Subject Alternative Name:[^\n]*\n([^\n]*)", text)
    # An address appears as "IP Address:192.0.2.1": it is no name, but a certificate with one is not the wanted one.
    domains = (each.strip().removeprefix("DNS:").lower() for each in names.group(1).split(",")) if names else ()
    # Unlike strptime this knows the English months in every locale.
    return Certificate(frozenset(domains), int(ssl.cert_time_to_seconds(end.group(1).strip())), key.group(0))


def renewal_parameters(text: str) -> dict[str, str]:
    """Return the section C(renewalparams) of a renewal configuration, without its own sub-sections.

    The file is in ConfigObj's format, whose library a host need not have for our Python.
    """
    found: dict[str, str] = {}
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line
        elif section == "[renewalparams]" and "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found[key.strip()] = value.strip().strip("'\"")
    return found


def read(name: str, run: Run, openssl: str | None) -> Lineage:
    """Read one lineage of this host.

    :param openssl: the path of openssl, or None where the host has none yet.
    """
    parameters: Mapping[str, str] = {}
    renewal = f"{RENEWAL}/{name}.conf"
    if os.path.isfile(renewal):
        with open(renewal, encoding="utf-8", errors="replace") as file:
            parameters = renewal_parameters(file.read())
    certificate, key_matches = None, False
    if openssl is not None and os.path.isfile(f"{LIVE}/{name}/{layout.CERTIFICATE_FILE}"):
        certificate, key_matches = _read_pair(f"{LIVE}/{name}", run, openssl)
    return Lineage(certificate, parameters.get("server"), key_matches, os.path.isfile(renewal))


def _read_pair(folder: str, run: Run, openssl: str) -> tuple[Certificate | None, bool]:
    asked = ["-noout", "-ext", "subjectAltName", "-enddate", "-pubkey"]
    _rc, out, _err = run([openssl, "x509", "-in", f"{folder}/{layout.CERTIFICATE_FILE}", *asked])
    certificate = parse_certificate(out)
    # The private key stays where it is: openssl says its public half, and that is what is compared.
    rc, public, _err = run([openssl, "pkey", "-in", f"{folder}/{layout.KEY_FILE}", "-pubout"])
    return certificate, certificate is not None and rc == 0 and public.strip() == certificate.public_key


def plan(lineage: Lineage, domains: frozenset[str], server: str, now: float) -> list[str]:
    """Return why a lineage must be obtained, a phrase each; nothing means that it is the wanted one.

    :param server: the directory URL of the CA that it must come from.
    :param now: seconds since 1970.
    """
    certificate = lineage.certificate
    if certificate is None:
        return ["it cannot be read" if lineage.known else "there is none"]
    reasons = []
    for words, names in (("it is not for", domains - certificate.domains), ("it is also for", certificate.domains - domains)):
        if names:
            reasons.append(f"{words} {', '.join(sorted(names))}")
    if lineage.server != server:
        reasons.append(f"it is from {lineage.server}" if lineage.server else "certbot does not know where it is from")
    if not lineage.key_matches:
        reasons.append("its private key is another's")
    if certificate.not_after <= now:
        reasons.append("it has expired")
    return reasons


def command(certbot: str, name: str, domains: list[str], server: str, email: str | None, known: bool) -> list[str]:
    """Return the command with which certbot obtains a lineage, or changes one in place.

    :param known: whether certbot has the lineage. It would otherwise keep one that is not due for renewal, also
        when it is from another CA.
    """
    argv = [certbot, "certonly", "--non-interactive", "--agree-tos", "--cert-name", name, "--server", server]
    argv += ["--email", email] if email else ["--register-unsafely-without-email"]
    argv += ["--webroot", "--webroot-path", layout.ACME_WEBROOT, "--key-type", "ecdsa"]
    argv += ["--force-renewal"] if known else []
    for domain in domains:
        argv += ["--domain", domain]
    return argv


def is_locked(output: str) -> bool:
    """Return whether certbot only said that another certbot is at work."""
    return re.search(r"another (instance of )?certbot (instance )?is (already )?running", output, re.IGNORECASE) is not None


_DETAIL = re.compile(r"^\s*(?:Domain|Identifier):\s*(?P<name>\S+)\s*\n\s*Type:\s*(?P<type>\S+)\s*\n\s*Detail:\s*(?P<detail>.+)$", re.MULTILINE)
# certbot puts a sentence of its own between the error's type and the CA's words.
_PROBLEM = re.compile(r"urn:ietf:params:acme:error:(?P<type>\w+) ::(?: .*? ::)? (?P<detail>.+)$", re.MULTILINE)
_UNVERIFIED = re.compile(r"CERTIFICATE_VERIFY_FAILED\]?[^\n:]*:\s*(?P<why>[^\n(]+)")
# What Python's libraries say of a server that cannot be spoken to, some of it wrapped three times.
_NO_ANSWER = [
    re.compile(pattern)
    for pattern in (
        r"Failed to establish a new connection: (?:\[Errno -?\d+\] )?(?P<why>[^{'\")\n]+)",
        r"Failed to resolve '[^'\n]*' \((?:\[Errno -?\d+\] )?(?P<why>[^)\n]+)\)",
        r"Requesting \S+: ?(?P<why>[^\n]+)",
        r"(?P<why>Read timed out)",
        r"Connection aborted[^\n]*\w+\((?:\d+, )?'(?P<why>[^'\n]+)'",
        r"SSLError\(\w+\(\d+, [\"'](?:\[SSL[^\]\n]*\] )?(?P<why>[^\"'(\n]+)",
    )
]
_UNEXPECTED = re.compile(r"An unexpected error occurred:\s*\n(?P<why>[^\n]+)")
_CHATTER = re.compile(r"^(Saving debug log|Ask for help|Requesting a |Account registered|Renewing an existing|Certbot failed to|Some challenges|Hint:|- - -)")


def words_of_failure(output: str, log: str, server: str) -> str:
    """Return in one line why certbot obtained nothing, in the CA's own words where it spoke.

    :param output: what certbot printed.
    :param log: what this run added to certbot's log. certbot before 2.3 has the CA's words only there: it breaks
        over its own exception (https://github.com/certbot/certbot/issues/9539).
    """
    details = [f"{each['name']}: {each['detail'].strip()} ({each['type']})" for each in _DETAIL.finditer(output)]
    if details:
        return "; ".join(dict.fromkeys(details))
    both = f"{output}\n{log}"
    unverified = _UNVERIFIED.search(both)
    if unverified:
        return f"{server} is not trusted: {unverified['why'].strip()}. Set certbot_ca_bundle to a PEM file with the CA that signed its certificate."
    problems = [f"{each['detail'].strip()} ({each['type']})" for each in _PROBLEM.finditer(both)]
    if problems:
        return "; ".join(dict.fromkeys(problems))
    silent = next((found for found in (pattern.search(both) for pattern in _NO_ANSWER) if found), None)
    if silent:
        return f"{server} does not answer: {silent['why'].strip()}"
    unexpected = _UNEXPECTED.search(output)
    if unexpected:
        return unexpected["why"].strip()
    lines = [line.strip() for line in output.splitlines() if line.strip() and not _CHATTER.match(line.strip())]
    return "; ".join(lines) or "certbot did not say why"
