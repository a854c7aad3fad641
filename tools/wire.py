"""The certificate that a server shows on the wire, trusted or not, as OpenSSL's client sees it."""

from __future__ import annotations

import re
import shlex
import ssl
import time
from dataclasses import dataclass

from acme import AcmeServer

# What a client says that can verify only one kind of signature (RFC 8446, section 4.2.3).
ONLY_ECDSA = ("-tls1_3", "-sigalgs", "ecdsa_secp256r1_sha256:ecdsa_secp384r1_sha384")
ONLY_RSA = ("-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256:rsa_pss_rsae_sha384")


@dataclass(frozen=True)
class Served:
    """A certificate. `key` is "ecdsa" or "rsa", `ends` are seconds since 1970."""

    serial: str
    issuer: str
    subject: str
    names: frozenset[str]
    key: str
    bits: int
    ends: float

    @property
    def days(self) -> float:
        """How long it is still valid."""
        return (self.ends - time.time()) / 86400

    @property
    def from_pebble(self) -> bool:
        return "Pebble Intermediate CA" in self.issuer


def served(client: AcmeServer, address: str, name: str, *flags: str) -> Served | None:
    """Return the certificate that a server shows for a name; None where there is no handshake.

    :param client: the container that asks.
    :param flags: of `openssl s_client`, such as ONLY_RSA.
    """
    ask = shlex.join(["openssl", "s_client", "-connect", f"{address}:443", "-servername", name, *flags])
    return described(client.run("sh", "-c", f"{ask} </dev/null 2>/dev/null | openssl x509 -noout -text -serial 2>/dev/null || true"))


def described(text: str) -> Served | None:
    """Read what `openssl x509 -noout -text -serial` says."""
    if "serial=" not in text:
        return None

    def find(pattern: str) -> str:
        found = re.search(pattern, text, re.MULTILINE)
        return found.group(1).strip() if found else ""

    return Served(
        serial=find(r"^serial=(\S+)"),
        issuer=find(r"^\s*Issuer:(.*)$"),
        subject=find(r"^\s*Subject:(.*)$"),
        names=frozenset(re.findall(r"DNS:([^,\s]+)", text)),
        key={"id-ecPublicKey": "ecdsa", "rsaEncryption": "rsa"}.get(find(r"Public Key Algorithm: (\S+)"), ""),
        bits=int(find(r"Public-Key: \((\d+) bit") or 0),
        ends=ssl.cert_time_to_seconds(find(r"Not After\s*: (.*)$")),
    )
