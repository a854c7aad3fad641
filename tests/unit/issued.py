"""Certificates made for a test, by CAs that are made for it too."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)


class Issued:
    """A certificate made for a test, with its key."""

    def __init__(self, name, signer=None, names=(), key=None, days=90, start=NOW - DAY, algorithm=None, ca=False, uses=(ExtendedKeyUsageOID.SERVER_AUTH,), fetch=False, responder=None):
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(subject_name=subject, issuer_name=signer.certificate.subject if signer else subject)
        builder = builder.public_key(self.key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(start).not_valid_after(start + days * DAY).add_extension(x509.BasicConstraints(ca, None), critical=True)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(each) for each in names]), critical=False)
        if uses and not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        places = [*([(AuthorityInformationAccessOID.CA_ISSUERS, "http://ca.test/i.der")] if fetch else []), *([(AuthorityInformationAccessOID.OCSP, responder)] if responder else [])]
        if places:
            described = [x509.AccessDescription(method, x509.UniformResourceIdentifier(place)) for method, place in places]
            builder = builder.add_extension(x509.AuthorityInformationAccess(described), critical=False)
        signing = signer.key if signer else self.key
        edwards = isinstance(signing, ed25519.Ed25519PrivateKey)
        self.certificate = builder.sign(signing, None if edwards else algorithm or hashes.SHA256())
        self.pem = self.certificate.public_bytes(Encoding.PEM).decode()
        self.key_pem = key_pem(self.key)


def key_pem(key, form=PrivateFormat.PKCS8, protection=None):
    return key.private_bytes(Encoding.PEM, form, protection or NoEncryption()).decode()
