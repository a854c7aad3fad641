# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Public keys of OpenPGP (RFC 9580), as far as it takes to tell them apart: a host need not have gpg for that.

Whether something is signed is apt's business. Here a file of keys becomes those that somebody has named by their
fingerprints, so that nothing else of it is trusted, whoever has put it there.
"""

from __future__ import annotations

import base64
import hashlib
import re
import typing as t
from collections.abc import Iterable

_BLOCK = re.compile(r"-----BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)
_SECRET_KEY, _PUBLIC_KEY, _SECRET_SUBKEY = 5, 6, 7
_OF_A_KEY = (_PUBLIC_KEY, 2, 13, 14, 17)
"""What belongs to a key: signatures, names, subkeys and pictures."""
_LINE = 64
_CRC_START, _CRC_POLYNOMIAL = 0xB704CE, 0x1864CFB


def chosen(content: bytes, fingerprints: Iterable[str]) -> bytes:
    """Return those keys of a file that have one of some fingerprints, in the order of the file.

    :param content: keys in ASCII armour, or as they are.
    :raises ValueError: with the end of a message, where it has none of them, or is no such file.
    """
    found = keys(content)
    wanted = set(fingerprints)
    kept = [key for fingerprint, key in found.items() if fingerprint in wanted]
    if not kept:
        raise ValueError(f"has the keys {', '.join(found)}, and the fingerprint of none of them is in fingerprints. Have it told to you by whom you trust, and write it there.")
    return b"".join(kept)


def keys(content: bytes) -> dict[str, bytes]:
    """Return the public keys of a file, fingerprint (in capital letters) to the key with all that belongs to it.

    :raises ValueError: with the end of a message, where it is no such file.
    """
    if re.search(rb"BEGIN PGP PRIVATE KEY", content):
        raise ValueError("has a private key in it, which is nobody's business but its owner's. Give the public one.")
    found: dict[str, bytes] = {}
    current = None
    for tag, body, whole in _packets(_dearmoured(content)):
        if tag in (_SECRET_KEY, _SECRET_SUBKEY):
            raise ValueError("has a private key in it, which is nobody's business but its owner's. Give the public one.")
        if tag == _PUBLIC_KEY:
            current = _fingerprint(body)
        if current is not None and tag in _OF_A_KEY:
            found[current] = found.get(current, b"") + whole
    if not found:
        raise ValueError("has no public key of OpenPGP in it. Give such a file, as 'gpg --export --armor' makes it.")
    return found


def armoured(content: bytes) -> str:
    """Return keys in ASCII armour."""
    written = base64.b64encode(content).decode()
    lines = [written[at : at + _LINE] for at in range(0, len(written), _LINE)]
    checksum = base64.b64encode(_crc24(content).to_bytes(3, "big")).decode()
    return "\n".join(["-----BEGIN PGP PUBLIC KEY BLOCK-----", "", *lines, f"={checksum}", "-----END PGP PUBLIC KEY BLOCK-----", ""])


def _dearmoured(content: bytes) -> bytes:
    blocks = _BLOCK.findall(content.decode("ascii", errors="replace").replace("\r\n", "\n"))
    try:
        return b"".join(map(_decoded, blocks)) if blocks else content
    except ValueError as error:
        raise ValueError("has a block of keys that is damaged. Fetch it again.") from error


def _decoded(block: str) -> bytes:
    """Return what stands between the lines of one block: headers, an empty line, base64, and a checksum."""
    _headers, _empty, body = re.sub(r"[ \t]+$", "", block, flags=re.MULTILINE).partition("\n\n")
    lines = [line.strip() for line in body.splitlines()]
    return base64.b64decode("".join(line for line in lines if not line.startswith("=")), validate=True)


def _packets(content: bytes) -> t.Iterator[tuple[int, bytes, bytes]]:
    """Return the packets of a file: what kind each is, what is in it, and all of it (section 4.2)."""
    at = 0
    while at < len(content):
        try:
            tag, length, start = _header(content, at)
        except IndexError:
            tag, length, start = 0, len(content), at + 1
        if not content[at] & 0x80 or start + length > len(content):
            raise ValueError("is no file of keys of OpenPGP, or only a part of one. Give one as 'gpg --export --armor' makes it.")
        yield tag, content[start : start + length], content[at : start + length]
        at = start + length


def _header(content: bytes, at: int) -> tuple[int, int, int]:
    """Return a packet's kind, its length, and where it begins. One without a length, or in parts, as no key is, is taken for too long."""
    first = content[at]
    if not first & 0x40:
        size = 1 << (first & 3)
        if size == 8:
            return 0, len(content), at + 1
        return (first >> 2) & 0xF, int.from_bytes(content[at + 1 : at + 1 + size], "big"), at + 1 + size
    length = content[at + 1]
    if length < 192:
        return first & 0x3F, length, at + 2
    if length < 224:
        return first & 0x3F, ((length - 192) << 8) + content[at + 2] + 192, at + 3
    if length < 255:
        return 0, len(content), at + 2
    return first & 0x3F, int.from_bytes(content[at + 2 : at + 6], "big"), at + 6


def _fingerprint(body: bytes) -> str | None:
    """Return a key's fingerprint (section 5.5.4); of versions other than the fourth, which apt's keys have, none."""
    if body[:1] != b"\x04" or len(body) > 0xFFFF:
        return None
    # What a fingerprint is made with is not ours to choose; nothing here rests on collisions of it.
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()


def _crc24(content: bytes) -> int:
    """Return the checksum of ASCII armour (section 6.1)."""
    crc = _CRC_START
    for byte in content:
        crc ^= byte << 16
        for _bit in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= _CRC_POLYNOMIAL
    return crc
