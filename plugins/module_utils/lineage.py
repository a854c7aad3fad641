# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a lineage of certbot is, read from its own files, and what keeps it from being the wanted one.

Nothing here asks certbot: its words change from version to version. The certificate says whom it is for and how
long, the renewal configuration says which CA renews it and how, and openssl reads the former on every host.
"""

from __future__ import annotations

import base64
import os
import re
import ssl
import typing as t
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.portico.web.plugins.module_utils import commands, der, files, layout

LETSENCRYPT = "/etc/letsencrypt"
LIVE = LETSENCRYPT + "/live"
RENEWAL = LETSENCRYPT + "/renewal"
ACCOUNTS = LETSENCRYPT + "/accounts"

STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"
"""A CA whose certificates nobody trusts (https://letsencrypt.org/docs/staging-environment/)."""

DAY = 86400
SHORT_LIVED = 10 * DAY
"""Below this a certificate is renewed at half of its life, and not at a third before its end."""

Order = Mapping[str, t.Any]
"""A lineage as it should be: name, domains, server, key_type, key_size, profile, reuse_key, preferred_chain and challenge."""

Run = Callable[..., tuple[int, str, str]]
"""Runs a command and returns its exit code, output and error output."""


@dataclass(frozen=True)
class Certificate:
    """What an X.509 certificate says."""

    domains: frozenset[str]
    not_after: int
    """The end of its validity, in seconds since 1970."""
    public_key: str
    """In PEM."""
    not_before: int = 0
    serial: str = ""
    """In capital hexadecimal digits."""
    issuer: str = ""
    key_type: str = ""
    """C(ecdsa) or C(rsa); nothing for a key of another kind."""
    key_size: int = 0
    """In bits."""

    @property
    def lifetime(self) -> int:
        """How long it is valid, in seconds."""
        return self.not_after - self.not_before + 1

    @property
    def window(self) -> int:
        """How long before its end it is renewed, in seconds, as Let's Encrypt asks its clients to.

        See U(https://letsencrypt.org/docs/integration-guide/#when-to-renew).
        """
        return self.lifetime // 2 if self.lifetime < SHORT_LIVED else self.lifetime // 3


@dataclass(frozen=True)
class Lineage:
    """A lineage as it is on the host; what is not there, or cannot be read, is None."""

    certificate: Certificate | None = None
    key_matches: bool = False
    configuration: str | None = None
    """The text of its renewal configuration."""
    parameters: Mapping[str, str] = field(default_factory=dict)

    @property
    def server(self) -> str | None:
        """The directory URL of the CA that renews it."""
        return self.parameters.get("server")

    @property
    def known(self) -> bool:
        """Whether certbot has a renewal configuration for it."""
        return self.configuration is not None


# ---- X.509

ASKED = ("-noout", "-serial", "-issuer", "-nameopt", "utf8,sep_comma_plus_space,lname", "-dates", "-ext", "subjectAltName", "-pubkey")
"""What openssl x509 is asked of a certificate."""

_ECDSA = bytes.fromhex("06072a8648ce3d0201")
_RSA = bytes.fromhex("06092a864886f70d010101")
_CURVES = {bytes.fromhex("06082a8648ce3d030107"): 256, bytes.fromhex("06052b81040022"): 384, bytes.fromhex("06052b81040023"): 521}
CURVE_NAMES = {256: "secp256r1", 384: "secp384r1", 521: "secp521r1"}
"""What certbot calls the curve of a size."""


def parse_certificate(text: str) -> Certificate | None:
    """Return what openssl said about a certificate.

    :param text: the output of C(openssl x509) with L(ASKED); C(-serial), C(-issuer) and the beginning may be missing.
    :returns: None where the text is not that.
    """
    said = {key: value.strip() for key, value in re.findall(r"^(serial|issuer|notBefore|notAfter)=(.*)$", text, re.MULTILINE)}
    key = re.search(r"^-----BEGIN PUBLIC KEY-----$.*?^-----END PUBLIC KEY-----$", text, re.MULTILINE | re.DOTALL)
    if "notAfter" not in said or key is None:
        return None
    names = re.search(r"Subject Alternative Name:[^\n]*\n([^\n]*)", text)
    # An address appears as "IP Address:192.0.2.1": it is no name, but a certificate with one is not the wanted one.
    domains = (each.strip().removeprefix("DNS:").lower() for each in names.group(1).split(",")) if names else ()
    key_type, key_size = kind_of_key(key.group(0))
    return Certificate(
        frozenset(domains),
        _seconds(said["notAfter"]),
        key.group(0),
        not_before=_seconds(said["notBefore"]) if "notBefore" in said else 0,
        serial=said.get("serial", "").upper(),
        issuer=said.get("issuer", ""),
        key_type=key_type,
        key_size=key_size,
    )


def read_certificate(path: str, run: Run = commands.run, openssl: str = "openssl") -> Certificate | None:
    """Read the first certificate of a PEM file; None where there is none, or none that can be read."""
    if not os.path.isfile(path):
        return None
    _rc, out, _err = run([openssl, "x509", "-in", path, *ASKED])
    return parse_certificate(out)


def kind_of_key(public_key: str) -> tuple[str, int]:
    """Return the type and the size in bits of a public key in PEM (RFC 5280, section 4.1.2.7)."""
    content = base64.b64decode("".join(line for line in public_key.splitlines() if not line.startswith("-----")))
    if _ECDSA in content:
        return "ecdsa", next((size for curve, size in _CURVES.items() if curve in content), 0)
    if _RSA in content:
        return "rsa", _bits_of_modulus(content)
    return "", 0


def _bits_of_modulus(public_key: bytes) -> int:
    """Return the size of the integer that an RSA public key begins with."""
    # SEQUENCE { SEQUENCE { algorithm }, BIT STRING { SEQUENCE { INTEGER modulus, INTEGER exponent } } }
    at = public_key.index(_RSA) + len(_RSA) + 2
    for _header in ("BIT STRING", "SEQUENCE"):
        _length, at = der.length_at(public_key, at + 1)
        at += public_key[at] == 0  # the bits that a BIT STRING leaves unused
    length, at = der.length_at(public_key, at + 1)
    return int.from_bytes(public_key[at : at + length], "big").bit_length()


def _seconds(words: str) -> int:
    # Unlike strptime this knows the English months in every locale.
    return int(ssl.cert_time_to_seconds(words))


# ---- the renewal configuration, in ConfigObj's format, whose library a host need not have for our Python


def renewal_parameters(text: str) -> dict[str, str]:
    """Return the section C(renewalparams) of a renewal configuration, without its own sub-sections."""
    return {key: value for section, key, value in _settings(text) if section == "[renewalparams]"}


def top_parameters(text: str) -> dict[str, str]:
    """Return what a renewal configuration says before its first section."""
    return {key: value for section, key, value in _settings(text) if section == ""}


def _settings(text: str) -> t.Iterator[tuple[str, str, str]]:
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = _section(line, section)
        elif "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            yield section, key.strip(), value.strip().strip("'\"")


_WEBROOTS = "[renewalparams][[webroot_map]]"


def _section(header: str, before: str) -> str:
    """Return a section's name, that of a sub-section with what it is part of."""
    return header if not header.startswith("[[") else before.partition("[[")[0] + header


def _written(value: str) -> str:
    """Return a value as ConfigObj reads it as one text. A list is written with a comma at its end."""
    if not value.endswith(",") and re.search(r"[,#]|^\s|\s$", value):
        return f"'{value}'" if '"' in value else f'"{value}"'
    return value


def with_parameters(text: str, parameters: Mapping[str, str | None], top: Mapping[str, str | None] | None = None, webroots: Mapping[str, str] | None = None) -> str:
    """Return a renewal configuration that says what is wanted, and else what it said, line by line.

    :param parameters: of the section C(renewalparams); None takes one out.
    :param top: of what stands before the first section.
    :param webroots: name to folder, the whole of the sub-section C(webroot_map); None leaves it as it is.
    """
    wanted = {"": dict(top or {}), "[renewalparams]": dict(parameters)}
    webroots_now = {key: value for section, key, value in _settings(text) if section == _WEBROOTS}
    new_map = ["[[webroot_map]]", *(f"{name} = {folder}" for name, folder in webroots.items())] if webroots else []
    is_new = webroots is not None and webroots != webroots_now
    kept: list[str] = []
    section = ""
    for line in [*text.splitlines(), "[end]"]:
        stripped = line.strip()
        if stripped.startswith("["):
            kept += _missing(wanted.get(section, {}))
            if section == "[renewalparams]" and is_new:
                kept += new_map
            section = _section(stripped, section)
            if section == _WEBROOTS and is_new:
                continue
        elif section == _WEBROOTS and is_new:
            continue
        elif "=" in stripped and not stripped.startswith("#") and section in wanted:
            key = stripped.split("=", 1)[0].strip()
            if key in wanted[section]:
                value = wanted[section].pop(key)
                if value is None:
                    continue
                if stripped.split("=", 1)[1].strip().strip("'\"") != value:
                    line = f"{key} = {_written(value)}"
        kept.append(line)
    return "\n".join(kept[:-1]) + "\n"


def _missing(wanted: dict[str, str | None]) -> list[str]:
    """Return lines for what was not met, and forget it."""
    lines = [f"{key} = {_written(value)}" for key, value in wanted.items() if value is not None]
    wanted.clear()
    return lines


# ---- reading and deciding


def read(name: str, run: Run = commands.run, openssl: str | None = "openssl") -> Lineage:
    """Read one lineage of this host.

    :param openssl: the path of openssl, or None where the host has none yet.
    """
    text = files.read(f"{RENEWAL}/{name}.conf")
    certificate, key_matches = None, False
    if openssl is not None:
        certificate, key_matches = read_pair(f"{LIVE}/{name}", run, openssl)
    return Lineage(certificate, key_matches, text, renewal_parameters(text or ""))


def read_pair(folder: str, run: Run = commands.run, openssl: str = "openssl") -> tuple[Certificate | None, bool]:
    """Return the certificate in a folder, and whether the key beside it is its own."""
    certificate = read_certificate(f"{folder}/{layout.CERTIFICATE_FILE}", run, openssl)
    if certificate is None:
        return None, False
    # The private key stays where it is: openssl says its public half, and that is what is compared.
    rc, public, _err = run([openssl, "pkey", "-in", f"{folder}/{layout.KEY_FILE}", "-pubout"])
    return certificate, rc == 0 and public.strip() == certificate.public_key


def plan(lineage: Lineage, order: Order, now: float, obtained_profile: str | None = None) -> list[str]:
    """Return why a lineage must be obtained, a phrase each; nothing means that it is the wanted one.

    What the order does not say may be as it is: a lineage that somebody made by hand is not obtained again for it.

    :param now: seconds since 1970.
    :param obtained_profile: the profile that it was last obtained with, where certbot does not keep it.
    """
    certificate = lineage.certificate
    if certificate is None:
        return ["it cannot be read" if lineage.known else "there is none"]
    reasons = []
    domains = frozenset(order["domains"])
    for words, names in (("it is not for", domains - certificate.domains), ("it is also for", certificate.domains - domains)):
        if names:
            reasons.append(f"{words} {', '.join(sorted(names))}")
    if lineage.server != order["server"]:
        reasons.append(f"it is from {lineage.server}" if lineage.server else "certbot does not know where it is from")
    if not lineage.key_matches:
        reasons.append("its private key is another's")
    reasons += _other_key(certificate, order)
    said = lineage.parameters
    if order.get("preferred_chain") and said.get("preferred_chain") != order["preferred_chain"]:
        reasons.append(f"its chain is not the one to {order['preferred_chain']}")
    profile = said.get("preferred_profile") or said.get("required_profile") or obtained_profile
    if order.get("profile") and profile != order["profile"]:
        reasons.append(f"its profile is not {order['profile']}")
    if said.get("account") and not accounts(order["server"]):
        reasons.append("its account is gone from this host")
    if certificate.not_after <= now:
        reasons.append("it has expired")
    return reasons


def _other_key(certificate: Certificate, order: Order) -> list[str]:
    wanted_type, wanted_size = order.get("key_type"), order.get("key_size")
    if wanted_type and certificate.key_type != wanted_type:
        return [f"its key is {certificate.key_type or 'of another kind'}, not {wanted_type}"]
    if wanted_size and certificate.key_size != wanted_size:
        return [f"its key has {certificate.key_size} bits, not {wanted_size}"]
    return []


def account_folder(server: str) -> str:
    """Return the folder in which certbot keeps its accounts at a CA."""
    parts = urllib.parse.urlsplit(server)
    return f"{ACCOUNTS}/{parts.netloc}{parts.path}"


def accounts(server: str) -> list[str]:
    """Return the accounts that this host has at a CA, by certbot's names for them."""
    folder = account_folder(server)
    return sorted(name for name in (os.listdir(folder) if os.path.isdir(folder) else []) if _has_account(server, name))


def _has_account(server: str, account: str) -> bool:
    return os.path.isfile(f"{account_folder(server)}/{account}/private_key.json")


def settled_configuration(lineage: Lineage, order: Order, version: Sequence[int], account: str | None = None) -> str:
    """Return a lineage's renewal configuration with all that its renewal depends on, and else as it is.

    This spends no order. C(certbot reconfigure) would, and is not in certbot before 2.3.

    :param version: certbot's.
    :param account: the one to renew with. If not given, it is the one that the lineage has, if the host still has that.
    """
    text = lineage.configuration or ""
    challenge = order["challenge"]
    parameters: dict[str, str | None] = {"installer": None, "autorenew": None, "reuse_key": "True" if order.get("reuse_key") else None}
    known = accounts(order["server"])
    chosen = next((each for each in (account, lineage.parameters.get("account"), *reversed(known)) if each in known), None)
    if chosen:
        parameters["account"] = chosen
    if lineage.parameters.get("authenticator") in ("standalone", "apache", "nginx"):
        # They made room on port 80 for certbot's own server. Run now, they would stop nginx at each renewal.
        parameters.update(pre_hook=None, post_hook=None)
    webroots: dict[str, str] = {}
    if challenge["kind"] == "http":
        parameters.update(authenticator="webroot", webroot_path=f"{layout.ACME_WEBROOT},", pref_challs=None)
        webroots = dict.fromkeys(order["domains"], layout.ACME_WEBROOT)
    elif challenge["kind"] == "dns":
        option = f"dns_{challenge['plugin'].replace('-', '_')}"
        parameters.update(authenticator=f"dns-{challenge['plugin']}", webroot_path=None, pref_challs=None)
        if challenge["has_credentials"]:
            parameters[f"{option}_credentials"] = credentials_file(order["name"])
        if challenge.get("propagation") is not None:
            parameters[f"{option}_propagation_seconds"] = str(challenge["propagation"])
    else:
        parameters.update(authenticator="manual", webroot_path=None, pref_challs=f"{challenge['type']},")
        parameters.update(manual_auth_hook=challenge["auth"], manual_cleanup_hook=challenge["cleanup"])
    return with_parameters(text, parameters, {"renew_before_expiry": _window(lineage, version)}, webroots)


def credentials_file(name: str) -> str:
    """Return where the credentials lie with which a lineage is proved through DNS."""
    return f"{layout.DNS_CREDENTIALS}/{name}.ini"


_UNITS = {"hour": 3600, "day": DAY, "week": 7 * DAY}


def window(certificate: Certificate, configuration: str | None) -> float:
    """Return how long before its end a certificate is renewed, in seconds: somebody's own word for it is respected."""
    said = re.fullmatch(r"(\d+) (hour|day|week)s?", top_parameters(configuration or "").get("renew_before_expiry", ""))
    return min(certificate.window, int(said.group(1)) * _UNITS[said.group(2)]) if said else certificate.window


def _window(lineage: Lineage, version: Sequence[int]) -> str | None:
    """Return what certbot must be told about when to renew; None where it decides well, and somebody's own word where it is one.

    Before 4.1 it renews 30 days before the end, which for a certificate of six days is at every run: 4.0 has a better
    default, and the old one always wins over it.
    """
    said = top_parameters(lineage.configuration or "").get("renew_before_expiry")
    certificate = lineage.certificate
    if certificate is None:
        return said
    ours = f"{certificate.window // 3600} hours"
    if said is not None and not re.fullmatch(r"\d+ hours", said):
        return said
    if tuple(version) >= (4, 1) or certificate.window == 30 * DAY:
        return None
    return ours


# ---- certbot's words, for people


def is_locked(output: str) -> bool:
    """Return whether certbot only said that another certbot is at work."""
    return re.search(r"another (instance of )?certbot (instance )?is (already )?running", output, re.IGNORECASE) is not None


def has_no_account(output: str, log: str) -> bool:
    """Return whether the CA said that it does not know the account."""
    return "urn:ietf:params:acme:error:accountDoesNotExist" in f"{output}\n{log}"


_DETAIL = re.compile(r"^\s*(?:Domain|Identifier):\s*(?P<name>\S+)\s*\n\s*Type:\s*(?P<type>\S+)\s*\n\s*Detail:\s*(?P<detail>.+)$", re.MULTILINE)
# certbot puts a sentence of its own between the error's type and the CA's words.
_PROBLEM = re.compile(r"urn:ietf:params:acme:error:(?P<type>\w+) ::(?: .*? ::)? (?P<detail>.+)$", re.MULTILINE)
# Of an answer that is a refusal; a CA also says with it when to ask for the end of a validation.
_RETRY_AFTER = re.compile(r"^HTTP [45]\d\d\n(?:[\w-]+: [^\n]*\n)*?Retry-After: (?P<when>[^\n]+)$", re.MULTILINE | re.IGNORECASE)
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
_CHATTER = re.compile(
    r"^(Saving debug log|Ask for help|Requesting a |Account registered|Renewing an existing|Certbot failed to|Some challenges|Hint:|- - -|Processing /|All renewals failed|"
    r"/etc/letsencrypt/\S+ \(failure\)|\d+ renew failure)"
)


def words_of_failure(output: str, log: str, server: str) -> str:
    """Return in one line why certbot obtained nothing, in the CA's own words where it spoke, and how long to wait.

    :param output: what certbot printed.
    :param log: what this run added to certbot's log. certbot before 2.3 has the CA's words only there, for it breaks
        over its own exception (https://github.com/certbot/certbot/issues/9539), and so has every C(renew --quiet).
    """
    both = f"{output}\n{log}"
    details = [f"{each['name']}: {each['detail'].strip()} ({each['type']})" for each in _DETAIL.finditer(both)]
    if details:
        return "; ".join(dict.fromkeys(details))
    unverified = _UNVERIFIED.search(both)
    if unverified:
        return f"{server} is not trusted: {unverified['why'].strip()}. Set certbot_ca_bundle to a PEM file with the CA that signed its certificate."
    problems = [f"{each['detail'].strip()} ({each['type']})" for each in _PROBLEM.finditer(both)]
    if problems:
        return "; ".join(dict.fromkeys(problems)) + _how_long(log)
    silent = next((found for found in (pattern.search(both) for pattern in _NO_ANSWER) if found), None)
    if silent:
        return f"{server} does not answer: {silent['why'].strip()}"
    unexpected = _UNEXPECTED.search(output)
    if unexpected:
        return unexpected["why"].strip()
    lines = [line.strip() for line in output.splitlines() if line.strip() and not _CHATTER.match(line.strip())]
    return "; ".join(lines) or "certbot did not say why"


def _how_long(log: str) -> str:
    """Return what the CA's Retry-After says to a person (RFC 9110, section 10.2.3); certbot has it only in its log."""
    found = _RETRY_AFTER.findall(log)
    if not found:
        return ""
    when = found[-1].strip()
    return f". The CA asks to wait {_duration(int(when))}" if when.isdigit() else f". The CA asks to wait until {when}"


def _duration(seconds: int) -> str:
    for unit, length in (("day", DAY), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            count = -(-seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"
