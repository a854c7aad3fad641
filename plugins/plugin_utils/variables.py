# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""nginx's variables that belong to one entry of a list: their names have letters, digits and underscores alone."""

from __future__ import annotations

import zlib


def number(*names: str) -> str:
    """Return the end of the names of an entry's variables: eight hexadecimal digits.

    Two entries whose names differ in their hyphens and dots alone are two entries.

    :param names: what the entry is called, after what it belongs to.
    """
    return f"{zlib.crc32('/'.join(names).encode()):08x}"
