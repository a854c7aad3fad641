"""What OpenSSL says of a certificate on the wire, read."""

from __future__ import annotations

import subprocess

import pytest
from wire import described


@pytest.fixture(params=[("ec", "ec_paramgen_curve:secp384r1", "ecdsa", 384), ("rsa", "rsa_keygen_bits:3072", "rsa", 3072)], ids=["ecdsa", "rsa"])
def made(request, tmp_path):
    """A certificate as OpenSSL describes it, the kind of its key, and its size."""
    algorithm, option, kind, bits = request.param
    certificate = tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", algorithm, "-pkeyopt", option, "-nodes", "-days", "3", "-subj", "/CN=A CA of ours", "-set_serial", "0x1F2E"]
        + ["-addext", "subjectAltName=DNS:a.example.test,DNS:*.example.test", "-keyout", tmp_path / "key.pem", "-out", certificate],
        check=True,
        capture_output=True,
    )
    done = subprocess.run(["openssl", "x509", "-noout", "-text", "-serial", "-in", certificate], check=True, capture_output=True, text=True)
    return done.stdout, kind, bits


def test_a_certificate_is_read(made):
    text, kind, bits = made
    found = described(text)
    assert (found.serial, found.key, found.bits) == ("1F2E", kind, bits)
    assert found.names == {"a.example.test", "*.example.test"}
    assert found.issuer == found.subject and "A CA of ours" in found.issuer and not found.from_pebble
    assert 2.9 < found.days <= 3


def test_no_handshake_is_no_certificate():
    assert described("") is None
