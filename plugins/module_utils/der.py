# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The encoding of X.509 (DER, in X.690), as far as a host must read it without a library."""

from __future__ import annotations

import typing as t


class Element(t.NamedTuple):
    """One value: C(tag) is its first byte, C(content) what it holds, C(whole) both with the length between them."""

    tag: int
    content: bytes
    whole: bytes


def elements(der: bytes) -> list[Element]:
    """Return the values that stand one after the other.

    :raises ValueError: where one is longer than what is there.
    """
    found, at = [], 0
    try:
        while at < len(der):
            length, begin = length_at(der, at + 1)
            if begin + length > len(der):
                raise ValueError(f"the value at {at} is cut off")
            found.append(Element(der[at], der[begin : begin + length], der[at : begin + length]))
            at = begin + length
    except IndexError as error:
        raise ValueError(f"the value at {at} is cut off") from error
    return found


def length_at(der: bytes, at: int) -> tuple[int, int]:
    """Return the length that stands at a place, and where what is that long begins (X.690, section 8.1.3)."""
    if der[at] < 0x80:
        return der[at], at + 1
    count = der[at] & 0x7F
    return int.from_bytes(der[at + 1 : at + 1 + count], "big"), at + 1 + count
