# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The list of certificates and the settings beside it: checked, complete, ready for the host."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import ssl
import typing as t
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from ansible_collections.portico.web.plugins.module_utils import lineage
from ansible_collections.portico.web.plugins.plugin_utils import entries, formats, own_certificates
from ansible_collections.portico.web.plugins.plugin_utils.entries import HIDDEN, Entry, did_you_mean, problem

SERVERS = {
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "staging": lineage.STAGING,
}
"""The CAs that have a name (https://letsencrypt.org/docs/staging-environment/)."""

_MOST_DOMAINS = 100
"""What Let's Encrypt puts into one certificate (https://letsencrypt.org/docs/rate-limits/)."""

_SECOND = "-rsa"
"""What the second lineage of a pair has at the end of its name."""

_OF_A_CA = ("server", "key_types", "ecdsa_size", "rsa_size", "profile", "preferred_chain", "challenge", "hooks")
_OF_ONES_OWN = ("certificate", "key", "chain")



@dataclass(frozen=True)
class Settings:
    """What holds for all certificates of a play, checked."""

    server: str
    """The URL of the CA's directory."""
    email: str | None
    ca_bundle: str | None
    """The text of the PEM bundle that verifies the CA's own server."""
    eab: Mapping[str, str] | None
    account: Mapping[str, t.Any] | None
    dns: Mapping[str, t.Any] | None
    install: str
    version: str | None
    metrics: str | None
    alarm_command: Sequence[str]
    removed: str
    preflight: bool
    scope: str

    @property
    def packages(self) -> list[str]:
        """Return the packages that the host needs."""
        certbot = ["certbot"] if self.install == "distribution" else ["python3-venv", "ca-certificates"]
        plugin = [f"python3-certbot-dns-{self.dns['plugin']}"] if self.dns and self.install == "distribution" else []
        # It asks what may issue, before an order.
        return [*certbot, *plugin, "openssl", *(["python3-dnspython"] if self.preflight else [])]

    @property
    def requirements(self) -> list[str]:
        """Return what a certbot from PyPI is made of; nothing for one of the distribution."""
        if self.install == "distribution":
            return []
        # pip finds the plugin's version that goes with it. Those of others have numbers of their own.
        certbot = f"certbot=={self.version}" if self.version else "certbot"
        return [certbot, *([f"certbot-dns-{self.dns['plugin']}"] if self.dns else [])]

    @property
    def credentials(self) -> str | None:
        """Return what the DNS plugin reads from its file."""
        if not self.dns or not self.dns["credentials"]:
            return None
        prefix = f"dns_{self.dns['plugin'].replace('-', '_')}_"
        pairs = ((key if key.startswith("dns_") else prefix + key, value) for key, value in self.dns["credentials"].items())
        return "".join(f"{key} = {value}\n" for key, value in pairs)


def normalise_certificates(certificates: object, variable: str = "certbot_certificates") -> list[Entry]:
    """Return the certificates complete and checked, each with all its documented keys.

    :raises PorticoError: at the first mistake.
    """
    described = entries.options("certbot_certificate", "certificates")
    complete = entries.normalise(variable, certificates, described, _FORMATS, secret=own_certificates.SECRET)
    names = {certificate["name"] for certificate in complete}
    for certificate in complete:
        _check_names(variable, certificate, names)
        _check_issuer(variable, certificate)
        certificate["challenge"] = certificate["challenge"] or _usual_challenge(certificate)
        for wildcard in (name for name in certificate["domains"] if name.startswith("*.") and certificate["issuer"] == "acme"):
            if certificate["challenge"] == "http" or (certificate["challenge"] == "hooks" and certificate["hooks"]["type"] == "http-01"):
                raise problem(variable, certificate["name"], "domains", wildcard, "is a wildcard, which is only proved through DNS. Leave challenge out, or write each name in full.")
    return complete


def _check_names(variable: str, certificate: Entry, names: set[str]) -> None:
    name, domains, key_types = certificate["name"], certificate["domains"], certificate["key_types"] or []
    twins = [each for at, each in enumerate(domains) if each in domains[:at]]
    if not domains:
        raise problem(variable, name, "domains", domains, "is empty. Write at least one host name.")
    if twins:
        raise problem(variable, name, "domains", twins[0], "stands there twice. Write each name once.")
    if len(domains) > _MOST_DOMAINS:
        raise problem(variable, name, "domains", domains, f"has {len(domains)} names, and a certificate has {_MOST_DOMAINS} at most. Make several of it.")
    if len(set(key_types)) < len(key_types):
        raise problem(variable, name, "key_types", key_types, "names one kind twice. Write each once.")
    if len(key_types) == 2 and name + _SECOND in names:
        raise problem(variable, name, "key_types", key_types, f'makes a second lineage, {name}{_SECOND}, and that is the name of another entry. Give one of them another name.')


def _check_issuer(variable: str, certificate: Entry) -> None:
    issuer, name = certificate["issuer"], certificate["name"]
    foreign = {"acme": _OF_ONES_OWN, "own": _OF_A_CA, "self_signed": (*_OF_A_CA, *_OF_ONES_OWN)}[issuer]
    for key in foreign:
        if certificate[key] is not None:
            needs = "own" if key in _OF_ONES_OWN else "acme"
            raise problem(variable, name, key, HIDDEN, f"is given, and the issuer is {issuer}. Take it out, or set issuer to {needs}.")
    for key in ("certificate", "key") if issuer == "own" else ():
        if certificate[key] is None:
            raise problem(variable, name, key, HIDDEN, "is missing. A certificate of one's own needs it: PEM, or the path of such a file on the controller. For a site's, say it in certbot_overrides.")
    if certificate["challenge"] == "hooks" and certificate["hooks"] is None:
        raise problem(variable, name, "hooks", HIDDEN, "is missing. Say with it which programs prove the names.")


def _usual_challenge(certificate: Entry) -> str:
    if certificate["hooks"] is not None:
        return "hooks"
    return "dns" if any(name.startswith("*.") for name in certificate["domains"]) else "http"


def host_entries(certificates: Iterable[Entry], settings: Settings, variable: str = "certbot_certificates") -> list[Entry]:
    """Return the certificates as the host keeps them, without what is secret: name, domains, issuer, trusted and orders.

    :param certificates: complete ones, as L(normalise_certificates) returns them.
    :returns: each with its orders: the lineages that it is made of, a pair having two.
    :raises PorticoError: where a certificate needs a setting that is not there.
    """
    found = []
    for certificate in certificates:
        server = certificate["server"] or settings.server
        orders = []
        if certificate["issuer"] == "acme":
            challenge = _challenge(variable, certificate, settings)
            types = certificate["key_types"] or [None]
            orders = [_order(certificate, server, challenge, each, at) for at, each in enumerate(types)]
        found.append(
            {
                "name": certificate["name"],
                "domains": certificate["domains"],
                "issuer": certificate["issuer"],
                "trusted": certificate["issuer"] == "own" or (certificate["issuer"] == "acme" and server != SERVERS["staging"]),
                "orders": orders,
            }
        )
    return found


def _order(certificate: Entry, server: str, challenge: Entry, key_type: str | None, at: int) -> Entry:
    sizes = {"ecdsa": certificate["ecdsa_size"], "rsa": certificate["rsa_size"]}
    # A size alone says the kind too: there is no other that has it.
    implied = key_type or next((kind for kind, size in sizes.items() if size), None)
    return {
        "name": certificate["name"] + (_SECOND if at else ""),
        "domains": certificate["domains"],
        "server": server,
        "key_type": implied,
        "key_size": sizes.get(implied or ""),
        "challenge": challenge,
        **{key: certificate[key] for key in ("profile", "reuse_key", "preferred_chain")},
    }


def _challenge(variable: str, certificate: Entry, settings: Settings) -> Entry:
    kind = certificate["challenge"]
    if kind == "hooks":
        return {"kind": kind, **certificate["hooks"]}
    if kind == "http":
        return {"kind": kind}
    if settings.dns is None:
        what = next((name for name in certificate["domains"] if name.startswith("*.")), None)
        key, value, why = ("domains", what, "is a wildcard, which is proved through DNS") if what else ("challenge", "dns", "needs to write records")
        raise problem(variable, certificate["name"], key, value, f"{why}. Say in certbot_dns how it is reached, or give the entry hooks.")
    return {"kind": kind, "plugin": settings.dns["plugin"], "has_credentials": settings.credentials is not None, "propagation": settings.dns["propagation"]}


def domain(value: str) -> str:
    """Return a host name that a CA can prove, in small letters; it may begin with C(*.)."""
    if _is_address(value):
        raise ValueError("is an address, and certificates are obtained for names. Write a host name.")
    wildcard = "*." if value.startswith("*.") else ""
    name = formats.host_name(value.removeprefix("*."))
    if "_" in name:
        raise ValueError("has an underscore, and no CA signs that. Use a name with letters, digits and hyphens.")
    return wildcard + name


def settings(given: Mapping[str, t.Any]) -> Settings:
    """Return the settings complete and checked.

    :param given: the names of options of C(certbot_certificate) to values; those that are missing, None or empty are not set.
    :raises PorticoError: at the first mistake, which names the role's variable.
    """
    described = entries.options("certbot_certificate")
    found = {}
    for key in Settings.__dataclass_fields__:
        value = given.get(key)
        variable = f"certbot_{key}"
        forms = {name.removeprefix(key).removeprefix("."): form for name, form in _SETTINGS.items() if name == key or name.startswith(f"{key}.")}
        found[key] = entries.setting(variable, None if value == "" else value, described[key], forms, _SECRET.get(key, ()))
    if found["version"] and found["install"] == "distribution":
        raise problem("certbot_version", None, "", found["version"], "is given, and certbot comes from the distribution, which has one version. Set certbot_install to pypi, or take it out.")
    if found["alarm_command"] and " " in found["alarm_command"][0]:
        why = "begins with a program that has a space in its name. Write the program and each of its arguments as one element of a list."
        raise problem("certbot_alarm_command", None, "", given["alarm_command"], why)
    return Settings(**found)


def check_settings(variables: Mapping[str, t.Any]) -> Settings:
    """Check the role's variables that are no list of entries, as far as they are there.

    :raises PorticoError: at the first mistake.
    """
    return settings({name.removeprefix("certbot_"): value for name, value in variables.items()})


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _server(value: str) -> str:
    formats.printable(value)
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
    formats.printable(value)
    if not re.fullmatch(r"[^@\s,;<>\"']+@[^@\s,;<>\"']+\.[^@\s,;<>\"'.]+", value) or value.startswith("-"):
        raise ValueError("is not a mail address. Write one, such as ops@example.com, without a name around it.")
    return value


def _bundle(value: str) -> str:
    """Return the text of a PEM bundle on the controller."""
    path = os.path.expanduser(formats.printable(value))
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


def _word(value: str) -> str:
    """Return what becomes one word of a command of certbot's or a value in its files."""
    formats.printable(value)
    if not value or value.startswith("-") or value != value.strip() or re.search(r"[\"'#=\\]", value):
        raise ValueError("cannot be told to certbot. Write it without quotes, '#', '=' and backslashes, and do not begin with '-'.")
    return value


def _hook(value: str) -> str:
    formats.printable(value)
    if not value.startswith("/") or "'" in value or '"' in value or "#" in value:
        raise ValueError("is not a command. Begin with the absolute path of a program on the host, and use neither quotes nor '#'.")
    return value


def _plugin(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value):
        raise ValueError("is not the name of a plugin. Write what follows 'dns-' in its name, such as rfc2136.")
    return value


def _credentials(value: Mapping[t.Any, t.Any]) -> Mapping[str, str]:
    for key, each in value.items():
        if not re.fullmatch(r"[a-z0-9_]+", str(key)):
            raise ValueError("has a key that is not made of small letters, digits and underscores. Write the plugin's own names.")
        if not isinstance(each, (str, int)) or isinstance(each, bool) or re.search(r"[\r\n]", str(each)):
            raise ValueError("has a value that is not a text of one line. Write each in quotes.")
    return {str(key): str(each) for key, each in value.items()}


def _propagation(value: int) -> int:
    if not 0 <= value <= 3600:
        raise ValueError("is not a number of seconds that an order can wait. Write 0 to 3600.")
    return value


def _base64url(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]+={0,2}", value):
        raise ValueError("is not base64url. Copy it as the CA has given it.")
    return value


def _version(value: str) -> str:
    if not re.fullmatch(r"\d+(\.\d+)+", value):
        raise ValueError("is not a version. Write one, such as 5.8.0, in quotes.")
    return value


def _account(value: str) -> Mapping[str, t.Any]:
    try:
        account = json.loads(value)
        right = isinstance(account, dict) and all(isinstance(account[key], kind) for key, kind in (("server", str), ("name", str), ("regr", dict), ("private_key", dict), ("meta", dict)))
    except (ValueError, KeyError):
        right = False
    if not right or not re.fullmatch(r"[0-9a-f]{32}", account["name"]):
        raise ValueError("is not what portico.web.certbot_account has exported. Give the whole text of its file.")
    _server(account["server"])
    return account


_FORMATS: Mapping[str, entries.Format] = {
    "name": formats.file_name,
    "domains": domain,
    "server": _server,
    "profile": _word,
    "preferred_chain": _word,
    "hooks.auth": _hook,
    "hooks.cleanup": _hook,
}

_SETTINGS: Mapping[str, entries.Format] = {
    "server": _server,
    "email": _email,
    "ca_bundle": _bundle,
    "eab.kid": _word,
    "eab.hmac_key": _base64url,
    "account": _account,
    "dns.plugin": _plugin,
    "dns.credentials": _credentials,
    "dns.propagation": _propagation,
    "version": _version,
    "metrics": formats.absolute_path,
    "alarm_command": formats.printable,
    "scope": formats.file_name,
}

_SECRET: Mapping[str, Sequence[str]] = {"eab": ("", "kid", "hmac_key"), "account": ("",), "dns": ("credentials",)}
"""Option -> what in it no message may show; nothing stands for the whole of it."""
