# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What this host's certificates are to be: written by the play, read by it again and by the host's own tool.

C(scopes) has a part for each scope: its C(certificates), name to entry, and the C(settings) that it sets to something
else than their defaults. There is nothing secret in it.
"""

from __future__ import annotations

import json
import os
import typing as t
from collections.abc import Collection

from ansible_collections.portico.web.plugins.module_utils import files, layout

FORMAT = 1

Manifest = dict[str, t.Any]
Entry = dict[str, t.Any]


def path() -> str:
    return f"{layout.CERTBOT}/manifest.json"


def load() -> Manifest:
    """Return the manifest; on a host without one, of nothing."""
    return json.loads(files.read(path()) or "null") or {"format": FORMAT, "scopes": {}}


def text(manifest: Manifest) -> str:
    """Return a manifest as it lies on the disk."""
    return json.dumps(manifest, indent=1, sort_keys=True) + "\n"


def save(manifest: Manifest) -> None:
    os.makedirs(layout.CERTBOT, mode=0o755, exist_ok=True)
    files.write(path(), text(manifest))


def with_part(manifest: Manifest, scope: str, part: Manifest) -> Manifest:
    """Return a manifest in which one scope is replaced; one without certificates and settings goes."""
    scopes = {name: each for name, each in manifest["scopes"].items() if name != scope}
    if part["certificates"] or part["settings"]:
        scopes[scope] = part
    return {"format": FORMAT, "scopes": dict(sorted(scopes.items()))}


def without(manifest: Manifest, names: Collection[str]) -> Manifest:
    """Return a manifest without what its scopes have given up, as far as it is named."""

    def kept(part: Manifest) -> Manifest:
        return {**part, "certificates": {name: entry for name, entry in part["certificates"].items() if name not in names or not entry.get("given_up")}}

    return {**manifest, "scopes": {scope: kept(part) for scope, part in manifest["scopes"].items()}}


def certificates(manifest: Manifest | None = None) -> dict[str, Entry]:
    """Return the certificates of all scopes, name to entry."""
    manifest = load() if manifest is None else manifest
    return {name: entry for part in manifest["scopes"].values() for name, entry in part["certificates"].items()}


def setting(key: str, default: t.Any = None, manifest: Manifest | None = None) -> t.Any:
    """Return what one of the scopes says of the whole host, or the default."""
    manifest = load() if manifest is None else manifest
    return next((part["settings"][key] for part in manifest["scopes"].values() if key in part["settings"]), default)
