# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates that somebody brings: read on the controller, and checked before the host is touched.

What nginx would refuse on the host, or visitors at its door, is refused here: a key of another certificate, a chain
with a hole or a stranger in it, names that are missing, dates, keys and signatures that are too weak.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from ansible_collections.portico.web.plugins.plugin_utils.controller import ReadText
from ansible_collections.portico.web.plugins.plugin_utils.entries import HIDDEN, PorticoError, problem

SECRET = ("key",)
"""The keys of an entry that no message may show."""

DAYS_TO_WARN = 14
_SMALLEST_RSA = 2048
_SMALLEST_CURVE = 256
_WEAK_HASHES = ("md5", "sha1")
"""OpenSSL does not load them at its usual security level, and no browser takes them."""

_LONGEST_PATH = 4096
_BLOCK = re.compile(r"-----BEGIN (?P<label>[A-Z0-9 ]+)-----.*?-----END (?P=label)-----", re.DOTALL)
_KEY_LABELS = ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY")

Mistake = Callable[[str, object, str], PorticoError]


@dataclass(frozen=True)
class Loaded:
    """What the host gets of a certificate."""

    fullchain: str
    """The certificate and its intermediates, in PEM."""
    key: str = field(repr=False)
    """In PEM (PKCS #8)."""
    warnings: list[str] = field(default_factory=list)
    """What the person should know about it all the same."""


def load(entry: Mapping[str, t.Any], read_text: ReadText, variable: str = "certbot_certificates", now: datetime | None = None) -> Loaded:
    """Return what the host gets of a certificate that somebody brings.

    The root is left out of the chain: a visitor trusts its own copy of it, or none (RFC 8446, section 4.4.2). Certificates in another
    order are put in order, because it does not matter to whoever wrote them; one that does not belong there is refused.

    :param entry: the certificate with its name, domains, certificate, key and chain.
    :param read_text: returns the text of a file on the controller; L(controller.reader) makes one.
    :param now: what is now, with its time zone.
    :raises PorticoError: at the first mistake, without anything of the key.
    """

    def mistake(key: str, value: object, why: str) -> PorticoError:
        return problem(variable, entry["name"], key, HIDDEN if key in SECRET else value, why)

    now = now or datetime.now(timezone.utc)
    given = _certificates(entry, "certificate", read_text, mistake)
    extra = _certificates(entry, "chain", read_text, mistake) if entry.get("chain") is not None else []
    key = _private_key(entry, read_text, mistake)
    leaf = next((each for each in given if _public(each) == _public(key)), None)
    if leaf is None:
        raise mistake("key", HIDDEN, f"belongs to another certificate than the one of {_named(given[0])}. Give the key with which that one was ordered.")
    chain, strangers = _chain(leaf, [*given, *(each for each in extra if each not in given)])
    for stranger in strangers:
        where = "chain" if stranger in extra else "certificate"
        raise mistake(where, HIDDEN, f"has a certificate that did not sign {_named(chain[-1])} ({_named(stranger)}). Take it out, or give the one that did.")
    _check_names(leaf, entry["domains"], mistake)
    _check_use(leaf, mistake)
    for each in chain:
        where = "chain" if each in extra else "certificate"
        _check_dates(each, now, where, mistake)
        _check_strength(each, where, mistake)
    fullchain = "".join(each.public_bytes(Encoding.PEM).decode() for each in chain)
    return Loaded(fullchain, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(), _warnings(entry["name"], chain, now))


# ---- reading


def _certificates(entry: Mapping[str, t.Any], key: str, read_text: ReadText, mistake: Mistake) -> list[x509.Certificate]:
    where, text = _text(entry, key, read_text, mistake)
    blocks = [(found["label"], found[0]) for found in _BLOCK.finditer(text)]
    if any("PRIVATE KEY" in label for label, _block in blocks):
        # What this is becomes a file that is no secret.
        raise mistake(key, where, 'has a private key in it. Give that in "key", and here the certificates alone.')
    certificates = [block for label, block in blocks if label == "CERTIFICATE"]
    if not certificates or text.count("-----BEGIN ") != len(blocks):
        raise mistake(key, where, "has no whole certificate in PEM. That begins with -----BEGIN CERTIFICATE----- and ends with -----END CERTIFICATE-----.")
    loaded = []
    for at, block in enumerate(certificates, start=1):
        try:
            certificate = x509.load_pem_x509_certificate(f"{block}\n".encode())
            _names(certificate)
            _public(certificate)
        except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            raise mistake(key, where, f"has a certificate that cannot be read (number {at}). Give it as the CA sent it.") from error
        if certificate not in loaded:
            loaded.append(certificate)
    return loaded


def _private_key(entry: Mapping[str, t.Any], read_text: ReadText, mistake: Mistake) -> t.Any:
    where, text = _text(entry, "key", read_text, mistake)
    blocks = [found for found in _BLOCK.finditer(text) if found["label"].endswith("PRIVATE KEY")]
    if any("ENCRYPTED" in found["label"] or "Proc-Type: 4,ENCRYPTED" in found[0] for found in blocks):
        why = "is protected by a passphrase, which nginx could not ask for. Take that off (openssl pkey -in FILE), and put the key into a vault."
        raise mistake("key", where, why)
    known = [found[0] for found in blocks if found["label"] in _KEY_LABELS]
    if len(blocks) != 1 or not known:
        raise mistake("key", where, "is not one private key in PEM. That begins with -----BEGIN PRIVATE KEY----- and ends with -----END PRIVATE KEY-----.")
    try:
        key = load_pem_private_key(f"{known[0]}\n".encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # What the library says of it may quote it.
        raise mistake("key", where, "is a private key that cannot be read. Give it whole, as it was made.") from None
    if not isinstance(key, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)):
        raise mistake("key", where, "is of a kind that TLS has no use for. Have a certificate made for an ECDSA or an RSA key.")
    return key


def _text(entry: Mapping[str, t.Any], key: str, read_text: ReadText, mistake: Mistake) -> tuple[object, str]:
    """Return a PEM text, and what a message may show of where it is from."""
    value = entry.get(key)
    if not value:
        why = f'is missing, and a certificate with the issuer "own" needs it. Give it in certbot_overrides, under the name "{entry["name"]}".'
        raise mistake(key, HIDDEN, why)
    if "-----BEGIN " in value:
        return HIDDEN, value
    if "\n" in value.strip() or len(value) > _LONGEST_PATH:
        raise mistake(key, HIDDEN, "is neither PEM nor the path of a file. PEM begins with -----BEGIN.")
    try:
        return value, read_text(value)
    except (OSError, ValueError) as error:
        why = (error.strerror or "it is no file") if isinstance(error, OSError) else str(error)
        # Without the error, which holds the value: it may be a key that somebody gave without its first line.
        raise mistake(key, value, f"cannot be read on the controller: {why}. Give PEM, or the path of a PEM file, absolute or beside the playbook.") from None


# ---- judging


def _chain(leaf: x509.Certificate, given: Sequence[x509.Certificate]) -> tuple[list[x509.Certificate], list[x509.Certificate]]:
    """Return the leaf and what leads from it towards a root, without the root, and those that are no part of that."""
    left = [each for each in given if each != leaf]
    chain = [leaf]
    while not _is_root(chain[-1]):
        signers = [each for each in left if _has_signed(each, chain[-1])]
        if not signers:
            break
        # An intermediate may have a root's name and key: it leads on to an older root, for visitors who do not know the new one.
        signer = min(signers, key=_is_root)
        if _is_root(signer):
            break
        left.remove(signer)
        chain.append(signer)
    return chain, [each for each in left if not (_is_root(each) and any(_has_signed(each, link) for link in chain))]


def _is_root(certificate: x509.Certificate) -> bool:
    return _has_signed(certificate, certificate)


def _has_signed(signer: x509.Certificate, certificate: x509.Certificate) -> bool:
    if certificate.issuer != signer.subject:
        return False
    try:
        _verify(signer, certificate)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        return False
    return True


def _verify(signer: x509.Certificate, certificate: x509.Certificate) -> None:
    if hasattr(certificate, "verify_directly_issued_by"):
        certificate.verify_directly_issued_by(signer)
        return
    # cryptography before 40.
    key: t.Any = signer.public_key()
    signature, signed = certificate.signature, certificate.tbs_certificate_bytes
    if isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, signed, padding.PKCS1v15(), certificate.signature_hash_algorithm)
    elif isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(certificate.signature_hash_algorithm))
    else:
        key.verify(signature, signed)


def _check_names(leaf: x509.Certificate, domains: Sequence[str], mistake: Mistake) -> None:
    names = _names(leaf)
    missing = [domain for domain in domains if not any(_covers(name, domain) for name in names)]
    if missing:
        valid_for = f"It is valid for {', '.join(names)}" if names else "It has no names at all (no subject alternative names)"
        why = f"is not valid for {', '.join(missing)}. {valid_for}: have one made for all the names of the sites that it serves."
        raise mistake("certificate", HIDDEN, why)


def _covers(name: str, domain: str) -> bool:
    """Return whether a name in a certificate is valid for a domain; a wildcard is for one label (RFC 6125, section 6.4.3)."""
    return name == domain or (name.startswith("*.") and not domain.startswith("*.") and domain.partition(".")[2] == name[2:])


def _check_use(leaf: x509.Certificate, mistake: Mistake) -> None:
    try:
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(uses):
        raise mistake("certificate", HIDDEN, "is not for servers (its extended key usage lacks serverAuth), so visitors refuse it. Have one made that is.")


def _check_dates(certificate: x509.Certificate, now: datetime, key: str, mistake: Mistake) -> None:
    if _end(certificate) <= now:
        raise mistake(key, HIDDEN, f"has expired ({_named(certificate)}, on {_date(_end(certificate))}). Give the one that follows it.")
    if _start(certificate) > now:
        raise mistake(key, HIDDEN, f"is not valid before {_date(_start(certificate))} ({_named(certificate)}). Wait until then, or set the controller's clock.")


def _check_strength(certificate: x509.Certificate, key: str, mistake: Mistake) -> None:
    public = certificate.public_key()
    smallest = {rsa.RSAPublicKey: ("RSA", _SMALLEST_RSA), ec.EllipticCurvePublicKey: ("ECDSA", _SMALLEST_CURVE)}
    for kind, (what, bits) in smallest.items():
        if isinstance(public, kind) and public.key_size < bits:
            why = f"has an {what} key of {public.key_size} bits ({_named(certificate)}), and it takes {bits} at least. Have one made for another key."
            raise mistake(key, HIDDEN, why)
    if _hash(certificate) in _WEAK_HASHES:
        raise mistake(key, HIDDEN, f"is signed with {_hash(certificate)} ({_named(certificate)}), which nobody accepts any more. Have it made anew.")


def _warnings(name: str, chain: Sequence[x509.Certificate], now: datetime) -> list[str]:
    found = []
    end = min(map(_end, chain))
    if end - now < timedelta(days=DAYS_TO_WARN):
        found.append(f"The certificate {name} expires on {_date(end)}. Nobody but you can renew it: give the one that follows it.")
    if len(chain) == 1 and not _is_root(chain[0]) and _says_where_its_issuer_is(chain[0]):
        signer = chain[0].issuer.rfc4514_string()
        found.append(f'The certificate {name} comes without the one that signed it ({signer}). Give that in "chain", or visitors may not trust it.')
    return found


def _says_where_its_issuer_is(certificate: x509.Certificate) -> bool:
    """Return whether it names an address to fetch its issuer from: an issuer that is no root then, as visitors have those."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    except x509.ExtensionNotFound:
        return False
    return any(each.access_method == AuthorityInformationAccessOID.CA_ISSUERS for each in access)


# ---- X.509 in the words of every version of the library


def _public(holder: t.Any) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def _hash(certificate: x509.Certificate) -> str:
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return ""
    return algorithm.name if algorithm else ""


def _end(certificate: x509.Certificate) -> datetime:
    # cryptography before 42 has only dates without a time zone, and later ones warn of them.
    return certificate.not_valid_after_utc if hasattr(certificate, "not_valid_after_utc") else certificate.not_valid_after.replace(tzinfo=timezone.utc)


def _start(certificate: x509.Certificate) -> datetime:
    return certificate.not_valid_before_utc if hasattr(certificate, "not_valid_before_utc") else certificate.not_valid_before.replace(tzinfo=timezone.utc)


def _date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")


def _named(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or ", ".join(_names(certificate)) or f"serial number {certificate.serial_number:X}"
