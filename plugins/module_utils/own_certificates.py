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
import shutil
import tempfile
import time
import typing as t
from collections.abc import Iterator, Mapping, Sequence

from ansible_collections.portico.web.plugins.module_utils import commands, files, layout, lineage

DAYS = 365
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
    folder = f"{layout.OWN}/{name}"
    certificate, key_matches = lineage.read_pair(folder)
    if certificate is None:
        return ["it cannot be read" if os.path.lexists(folder) else "there is none"]
    reasons = []
    wanted = frozenset(domain.lower() for domain in domains)
    for words, names in (("it is not for", wanted - certificate.domains), ("it is also for", certificate.domains - wanted)):
        if names:
            reasons.append(f"{words} {', '.join(sorted(names))}")
    if not _is_self_signed(folder):
        reasons.append("it is not self-signed")
    if not key_matches:
        reasons.append("its private key is another's")
    left = certificate.not_after - now
    if left <= 0:
        reasons.append("it has expired")
    elif left < certificate.window:
        reasons.append(f"it expires in {int(left // lineage.DAY)} days")
    elif certificate.not_before > now:
        reasons.append("it is not valid yet")
    return reasons or _readable_by_others(name)


def _is_self_signed(folder: str) -> bool:
    """Return whether the certificate in a folder names itself as its issuer: one that somebody brought before seldom does."""
    done = commands.run(["openssl", "x509", "-in", f"{folder}/{layout.CERTIFICATE_FILE}", "-noout", "-subject_hash", "-issuer_hash"])
    return done.rc == 0 and len(set(done.out.split())) == 1


def _readable_by_others(name: str) -> list[str]:
    """Return whether anybody but root could read the key."""
    folder = f"{layout.OWN}/{name}"
    return ["others may read its private key"] if any(os.stat(each).st_mode & 0o077 for each in (folder, f"{folder}/{layout.KEY_FILE}")) else []


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
        common_name = domains[0] if len(domains[0]) <= _LONGEST_COMMON_NAME else name[:_LONGEST_COMMON_NAME]
        files.write(request, _REQUEST.format(common_name=common_name, names=", ".join(f"DNS:{domain}" for domain in domains)))
        # What openssl.cnf of the host says of certificates must not be in this one.
        command = ["openssl", "req", "-x509", "-config", request, "-sha256", "-days", str(days), "-nodes"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-pkeyopt", "ec_param_enc:named_curve"]
        done = commands.run([*command, "-keyout", f"{new}/{layout.KEY_FILE}", "-out", f"{new}/{layout.CERTIFICATE_FILE}"])
        if done.rc != 0:
            raise OwnCertificateError(f"openssl cannot sign it: {'; '.join(done.err.strip().splitlines()) or f'it ended with {done.rc} and did not say why'}")
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
    if not os.path.isdir(layout.OWN):
        return
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
