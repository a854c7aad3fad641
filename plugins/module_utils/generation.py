# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the controller and the host must agree on about a generation of nginx's configuration."""

from __future__ import annotations

import hashlib
import typing as t
from collections.abc import Iterable, Mapping


def digest(text: str) -> str:
    """Return the fingerprint of a published file's text."""
    return hashlib.sha256(text.encode()).hexdigest()


def changed_files(live: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """Return the paths that are new, gone or different, in order.

    :param live: path -> digest of what is live.
    :param wanted: path -> digest of what is wanted.
    """
    return sorted(path for path in live.keys() | wanted.keys() if live.get(path) != wanted.get(path))


def differences(state: Mapping[str, t.Any], wanted: Mapping[str, str], certificates: Iterable[str]) -> list[str]:
    """Return what keeps a host from serving the wanted configuration, a phrase each; nothing means unchanged.

    :param state: what M(portico.web.nginx_generation) says of the host.
    """
    found = [f"{path} differs" for path in changed_files(state["files"], wanted)]
    missing = sorted(set(certificates) - set(state["certificates"]))
    found += [f"the certificate {name} has neither a lineage nor a placeholder" for name in missing]
    if not state["installed"]:
        found.append("nginx is not installed")
    if not state["entered"]:
        found.append("nginx.conf is not the published one")
    if state["default_site"]:
        found.append("the distribution's default site is switched on")
    if not state["active"]:
        found.append("nginx does not run")
    if not state["enabled"]:
        found.append("nginx does not start with the host")
    return found
