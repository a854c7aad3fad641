# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether nginx staples an OCSP response to a certificate (RFC 6066, section 8): where the certificate names a responder.

What nginx is told lies beside the certificate, in a file that is not there for any other: nginx warns of a certificate
without a responder at each start. The certificates are read here, in DER, so that a run costs no process for it.

See U(https://nginx.org/en/docs/http/ngx_http_ssl_module.html#ssl_stapling).
"""

from __future__ import annotations

import functools
import re
import ssl
import typing as t
from collections.abc import Iterable

from ansible_collections.portico.web.plugins.module_utils import der, files, layout

_ACCESS = bytes.fromhex("2b06010505070101")
"""Authority Information Access (RFC 5280, section 4.2.2.1)."""
_OCSP = bytes.fromhex("2b06010505073001")
_VERSION, _EXTENSIONS, _URI = 0xA0, 0xA3, 0x86
"""Tags in a certificate."""

_NOT_FOR_CLIENTS = bytes.fromhex("300ca00a06082b06010505070302")
"""What OpenSSL reads behind a trusted certificate: it vouches for no client (C(openssl x509 -addreject clientAuth))."""

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----\s.+?\s-----END CERTIFICATE-----", re.DOTALL)


class _Certificate(t.NamedTuple):
    """What counts here; both names are in DER."""

    whole: bytes
    subject: bytes
    issuer: bytes
    responders: tuple[str, ...]


def wanted(folder: str, paths: Iterable[str]) -> dict[str, bytes | None]:
    """Return the files that have nginx staple to the certificates of a server block, path to content.

    nginx may look at any moment: written in this order, no file names one that is not there. One without content is not to be there.

    :param folder: where they are.
    :param paths: of the certificates, each with its chain.
    """
    conf, trusted = f"{folder}/{layout.STAPLING_FILE}", f"{folder}/{layout.STAPLING_CAS_FILE}"
    chains = [_certificates(files.read(path) or "") for path in paths]
    if not all(chain and _has_responder(chain[0]) for chain in chains):
        return {conf: None, trusted: None}
    named = {certificate.issuer for chain in chains for certificate in chain}
    cas = [ca for ca in _certificates(files.read(layout.TRUSTED_CAS) or "") if ca.subject in named]
    # A response is about a certificate and its issuer, which nginx looks for in the chain and among those it trusts.
    if not all(chain[0].issuer in {each.subject for each in (*chain[1:], *cas)} for chain in chains):
        return {conf: None, trusted: None}
    if not cas:
        return {conf: layout.STAPLING.encode(), trusted: None}
    return {trusted: "".join(map(_for_servers, cas)).encode(), conf: (layout.STAPLING + layout.STAPLING_CAS.format(path=trusted)).encode()}


def settle(folder: str) -> bool:
    """Have a folder say what its certificates want, as they are now, and return whether it did not.

    Where one cannot be read nothing is changed: nginx has it in memory, and a reload could only make it worse.

    :raises OSError: in the system's words.
    """
    paths = [f"{folder}/{layout.CERTIFICATE_FILE}"]
    if f"{folder}/rsa/" in (files.read(f"{folder}/{layout.TRANSPORT_FILE}") or ""):
        paths.append(f"{folder}/rsa/{layout.CERTIFICATE_FILE}")
    if not all(_certificates(files.read(path) or "") for path in paths):
        return False
    different = {path: content for path, content in wanted(folder, paths).items() if files.read(path) != (None if content is None else content.decode())}
    for path, content in different.items():
        if content is None:
            files.remove(path)
        else:
            files.write_bytes(path, content)
    return bool(different)


def _has_responder(certificate: _Certificate) -> bool:
    """Return whether nginx can ask somebody about a certificate: it takes the first that is named, and speaks HTTP alone."""
    return bool(certificate.responders) and certificate.responders[0].lower().startswith("http://")


def _for_servers(ca: _Certificate) -> str:
    """Return a CA in PEM as one that vouches for no client.

    A responder may sign with a certificate of its own, whose CA nginx must trust. But whom nginx trusts there it trusts about
    visitors' certificates too, where a site asks for these.
    """
    return ssl.DER_cert_to_PEM_cert(ca.whole + _NOT_FOR_CLIENTS).replace(" CERTIFICATE-", " TRUSTED CERTIFICATE-")


@functools.lru_cache(maxsize=16)
def _certificates(text: str) -> tuple[_Certificate, ...]:
    """Return the certificates of a PEM file; one that cannot be read is nobody's, and has no responder."""
    return tuple(map(_certificate, _PEM.findall(text)))


def _certificate(text: str) -> _Certificate:
    try:
        return _read(ssl.PEM_cert_to_DER_cert(text))
    except ValueError:
        return _Certificate(b"", b"", text.encode(), ())


def _read(whole: bytes) -> _Certificate:
    """Read a certificate (RFC 5280, section 4.1).

    :raises ValueError: where it is none.
    """
    (certificate,) = der.elements(whole)
    body, *_signature = der.elements(certificate.content)
    parts = der.elements(body.content)
    _serial, _algorithm, issuer, _validity, subject, _key, *others = parts[parts[0].tag == _VERSION :]
    extensions = [each for other in others if other.tag == _EXTENSIONS for each in der.elements(der.elements(other.content)[0].content)]
    return _Certificate(whole, subject.whole, issuer.whole, tuple(uri for extension in extensions for uri in _responders(extension.content)))


def _responders(extension: bytes) -> list[str]:
    """Return the URIs of OCSP responders in an extension, if it is the one that has them."""
    identifier, *_critical, value = der.elements(extension)
    if identifier.content != _ACCESS:
        return []
    described = [der.elements(each.content) for each in der.elements(der.elements(value.content)[0].content)]
    return [place.content.decode("ascii", "replace") for method, place in described if method.content == _OCSP and place.tag == _URI]
