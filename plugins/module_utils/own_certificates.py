# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates on a host that certbot knows nothing of: those that somebody brings, and those that the host signs itself.

C(OWN/NAME) is a symlink to a folder with a certificate and its key, C(OWN/.NAME/...), which is never edited. So both change at
once, and whoever stops the machine at any moment has the old ones or the new ones. A key is for root alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import time
import typing as t
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.portico.web.plugins.module_utils import files, layout, lineage

DAYS = 365
SECONDS_FOR_OPENSSL = 60
_LONGEST_COMMON_NAME = 64
"""In RFC 5280, appendix A.1."""

_REQUEST = """\
[req]
distinguished_name = subject
x509_extensions = leaf
prompt = no
utf8 = yes
[subject]
CN = {common_name}
[leaf]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
subjectAltName = {names}
"""


class OwnCertificateError(OSError):
    """Why the host could not make a certificate, in words for the person."""


@dataclass(frozen=True)
class _Found:
    """What there is of a certificate: what it says, and what it says beside that."""

    certificate: lineage.Certificate | None = None
    not_before: int = 0
    self_signed: bool = False
    key_matches: bool = False


# ---- reading and deciding


def differs(name: str, fullchain: str, key: str) -> list[str]:
    """Return why the host has not what somebody brought, a phrase each; nothing means that it has."""
    folder = f"{layout.OWN}/{name}"
    if not os.path.exists(f"{folder}/{layout.CERTIFICATE_FILE}"):
        return ["there is none"]
    reasons = []
    if files.read(f"{folder}/{layout.CERTIFICATE_FILE}") != fullchain:
        reasons.append("it is another one")
    if files.read(f"{folder}/{layout.KEY_FILE}") != key:
        reasons.append("its private key is another one")
    return reasons or _readable_by_others(name)


def due(name: str, domains: Sequence[str], now: float) -> list[str]:
    """Return why the host must sign a certificate anew, a phrase each; nothing means that it has the wanted one.

    :param now: seconds since 1970.
    """
    found = _read(name)
    certificate = found.certificate
    if certificate is None:
        return ["it cannot be read" if os.path.lexists(f"{layout.OWN}/{name}") else "there is none"]
    reasons = []
    wanted = frozenset(domain.lower() for domain in domains)
    for words, names in (("it is not for", wanted - certificate.domains), ("it is also for", certificate.domains - wanted)):
        if names:
            reasons.append(f"{words} {', '.join(sorted(names))}")
    if not found.self_signed:
        reasons.append("it is not self-signed")
    if not found.key_matches:
        reasons.append("its private key is another's")
    left, life = certificate.not_after - now, certificate.not_after - found.not_before
    if left <= 0:
        reasons.append("it has expired")
    elif left < life / 3:
        reasons.append(f"it expires in {int(left // 86400)} days")
    elif found.not_before > now:
        reasons.append("it is not valid yet")
    return reasons or _readable_by_others(name)


# ---- acting


def install(name: str, fullchain: str, key: str) -> None:
    """Put a certificate that somebody brought in the place of what there is."""
    with _new_version(name) as new:
        files.write(f"{new}/{layout.KEY_FILE}", key, 0o600)
        files.write(f"{new}/{layout.CERTIFICATE_FILE}", fullchain, 0o644)


def self_sign(name: str, domains: Sequence[str], days: int = DAYS) -> None:
    """Make a certificate that nobody but its key vouches for, with a new key and a new serial number.

    :raises OSError: in openssl's words, or the system's.
    """
    with _new_version(name) as new:
        request = f"{new}/request.conf"
        common_name = domains[0] if len(domains[0]) <= _LONGEST_COMMON_NAME else name
        files.write(request, _REQUEST.format(common_name=common_name, names=", ".join(f"DNS:{domain}" for domain in domains)))
        # What openssl.cnf of the host says of certificates must not be in this one.
        command = ["req", "-x509", "-config", request, "-sha256", "-days", str(days), "-nodes"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-pkeyopt", "ec_param_enc:named_curve"]
        rc, _out, err = _openssl([*command, "-keyout", f"{new}/{layout.KEY_FILE}", "-out", f"{new}/{layout.CERTIFICATE_FILE}"])
        if rc != 0:
            raise OwnCertificateError(f"openssl cannot sign it: {'; '.join(err.strip().splitlines()) or 'it did not say why'}")
        os.remove(request)
        os.chmod(f"{new}/{layout.KEY_FILE}", 0o600)
        os.chmod(f"{new}/{layout.CERTIFICATE_FILE}", 0o644)


def renew(entries: Mapping[str, Mapping[str, t.Any]]) -> list[str]:
    """Sign anew what the host signs itself, where it is due. One that fails keeps no other from being made.

    :param entries: name -> an entry of the register, with C(issuer) and C(domains); those of other issuers are passed over.
    :returns: what went wrong, a line for each certificate, beginning with its name.
    """
    problems = []
    for name, entry in entries.items():
        if entry["issuer"] != "self_signed":
            continue
        try:
            if due(name, entry["domains"], time.time()):
                self_sign(name, entry["domains"])
        except OSError as error:
            problems.append(f"{name}: {error}")
    return problems


def remove(name: str) -> None:
    """Remove a certificate and its key, if they are there."""
    with _lock():
        files.remove(f"{layout.OWN}/{name}")
        shutil.rmtree(_versions(name), ignore_errors=True)


def _versions(name: str) -> str:
    # No certificate's name begins with a dot.
    return f"{layout.OWN}/.{name}"


@contextlib.contextmanager
def _new_version(name: str) -> Iterator[str]:
    """Give a folder to fill, and have it be the certificate then; whatever fails leaves what there was."""
    with _lock():
        versions = _versions(name)
        os.makedirs(versions, mode=0o700, exist_ok=True)
        live = os.path.basename(files.target(f"{layout.OWN}/{name}") or "")
        # What a run that was killed had not finished.
        _clear(versions, live)
        new = tempfile.mkdtemp(dir=versions)
        try:
            yield new
            _flush(new)
            files.point(f"{layout.OWN}/{name}", os.path.relpath(new, layout.OWN), f"{versions}/link")
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        _flush(layout.OWN)
        _clear(versions, os.path.basename(new))


def _clear(versions: str, kept: str) -> None:
    for each in os.scandir(versions):
        if each.name == kept:
            continue
        if each.is_dir(follow_symlinks=False):
            shutil.rmtree(each.path)
        else:
            os.remove(each.path)


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """Keep the play and the host's timer from changing one certificate at the same time."""
    os.makedirs(layout.OWN, mode=0o700, exist_ok=True)
    lock = os.open(f"{layout.OWN}/.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _flush(folder: str) -> None:
    """Have a folder and its files on the disk: after a power cut the link must not lead to empty ones."""
    for path in (*(each.path for each in os.scandir(folder) if each.is_file(follow_symlinks=False)), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# ---- X.509


def _read(name: str) -> _Found:
    folder = f"{layout.OWN}/{name}"
    if not os.path.isfile(f"{folder}/{layout.CERTIFICATE_FILE}"):
        return _Found()
    asked = ["-noout", "-subject", "-issuer", "-dates", "-ext", "subjectAltName", "-pubkey"]
    _rc, out, _err = _openssl(["x509", "-in", f"{folder}/{layout.CERTIFICATE_FILE}", *asked])
    certificate = lineage.parse_certificate(out)
    if certificate is None:
        return _Found()
    said = {key: value.strip() for key, value in re.findall(r"^(subject|issuer|notBefore)=(.*)$", out, re.MULTILINE)}
    # The private key stays where it is: openssl says its public half, and that is what is compared.
    rc, public, _err = _openssl(["pkey", "-in", f"{folder}/{layout.KEY_FILE}", "-pubout"])
    not_before = int(ssl.cert_time_to_seconds(said["notBefore"]))
    return _Found(certificate, not_before, said["subject"] == said["issuer"], rc == 0 and public.strip() == certificate.public_key)


def _readable_by_others(name: str) -> list[str]:
    """Return whether anybody but root could read the key."""
    folder = f"{layout.OWN}/{name}"
    return ["others may read its private key"] if any(os.stat(each).st_mode & 0o077 for each in (folder, f"{folder}/{layout.KEY_FILE}")) else []


def _openssl(arguments: Sequence[str]) -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            ["openssl", *arguments],
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS_FOR_OPENSSL,
            umask=0o077,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise OwnCertificateError(f"openssl had not ended after {SECONDS_FOR_OPENSSL} seconds") from error
    return done.returncode, done.stdout, done.stderr
