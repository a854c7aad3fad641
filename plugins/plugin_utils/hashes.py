# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hashes of passwords as crypt(3) of the host reads them, made on a controller that may have no crypt(3) of its own.

The function is scrypt (RFC 7914) of Python's own library; what is written here is its text, prefix C($7$), as it is described in
crypt(5) of libxcrypt.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

_LETTERS = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_COST, _BLOCKS, _LANES = 11, 8, 1
"""Two megabytes and some milliseconds. nginx works a hash out at each request, and does nothing else meanwhile."""


def hashed(password: str) -> str:
    """Return a hash of a password, with a salt of its own."""
    return _salted(password, _written(secrets.token_bytes(16)))


def fits(password: str, known: str) -> bool:
    """Return whether a hash is one of this password, and made as L(hashed) makes them now."""
    salt = known[len(_PREFIX) :].partition("$")[0]
    return known.startswith(_PREFIX) and hmac.compare_digest(_salted(password, salt), known)


def _salted(password: str, salt: str) -> str:
    found = hashlib.scrypt(password.encode(), salt=salt.encode(), n=1 << _COST, r=_BLOCKS, p=_LANES, dklen=32)
    return f"{_PREFIX}{salt}${_written(found)}"


def _written(content: bytes) -> str:
    groups = (content[at : at + 3] for at in range(0, len(content), 3))
    return "".join(_digits(int.from_bytes(group, "little"), len(group) + 1) for group in groups)


def _digits(number: int, count: int) -> str:
    """Return a number as so many digits of six bits, the smallest first."""
    return "".join(_LETTERS[number >> 6 * at & 63] for at in range(count))


_PREFIX = f"$7${_LETTERS[_COST]}{_digits(_BLOCKS, 5)}{_digits(_LANES, 5)}"
