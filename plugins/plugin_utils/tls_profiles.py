# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What Mozilla recommends of TLS, as it is published: one guideline, with its version, and its profiles by name.

A newer guideline changes this file and no template. See U(https://wiki.mozilla.org/Security/Server_Side_TLS).
"""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

GUIDELINE: t.Final = "6.0"
SOURCE: t.Final = f"https://ssl-config.mozilla.org/guidelines/{GUIDELINE}.json"
_HYBRID: t.Final = "X25519MLKEM768"
"""A group that OpenSSL has since 3.5. An older one refuses a list with it."""


class Profile(t.NamedTuple):
    """What is spoken, in the words of nginx and OpenSSL, and in the order of preference."""

    protocols: tuple[str, ...]
    ciphers: tuple[str, ...]
    """Those of TLS 1.2. Of TLS 1.3 all that OpenSSL has are good."""
    groups: tuple[str, ...]

    def without_hybrid(self) -> Profile:
        """Return the profile for an OpenSSL that has no post-quantum group."""
        return self._replace(groups=tuple(group for group in self.groups if group != _HYBRID))


_GROUPS = (_HYBRID, "X25519", "prime256v1", "secp384r1")
PROFILES: t.Final[Mapping[str, Profile]] = {
    "modern": Profile(("TLSv1.3",), (), _GROUPS),
    "intermediate": Profile(
        ("TLSv1.2", "TLSv1.3"),
        (
            "ECDHE-ECDSA-AES128-GCM-SHA256",
            "ECDHE-RSA-AES128-GCM-SHA256",
            "ECDHE-ECDSA-AES256-GCM-SHA384",
            "ECDHE-RSA-AES256-GCM-SHA384",
            "ECDHE-ECDSA-CHACHA20-POLY1305",
            "ECDHE-RSA-CHACHA20-POLY1305",
        ),
        _GROUPS,
    ),
}
