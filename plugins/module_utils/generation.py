# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the controller and the host must agree on about a generation of nginx's configuration.

A generation is described by its manifest: C(host) is the part that there is once, with the settings it was made of
and the scope that set them; C(scopes) has, for each scope, its C(sites) (name to server names), the C(certificates)
they refer to (name to the server names that are served with it) and C(files), path inside the generation to digest.
"""

from __future__ import annotations

import base64
import json
import typing as t
import zlib
from collections.abc import Iterable, Mapping

from ansible_collections.portico.web.plugins.module_utils.files import digest

FORMAT = 1
MANIFEST = "manifest.json"
MARKER = "marker.conf"
CERTIFICATES = "certificates"
PASSWORDS = "passwords"
"""The folder of what no output shows."""
NOT_CARRIED = (MANIFEST, MARKER, CERTIFICATES)
"""What every generation makes anew."""

Part = dict[str, t.Any]
Manifest = dict[str, t.Any]


def is_secret(path: str) -> bool:
    """Return whether no output shows what is in a file of a generation."""
    return path.startswith(f"{PASSWORDS}/")


def shown(path: str, text: str) -> str:
    """Return what may be shown of a file of a generation: of a hash only whether it is another one."""
    text = text.encode(errors="surrogateescape").decode(errors="replace")
    if not is_secret(path):
        return text
    named = (line.partition(":") for line in text.splitlines())
    return "".join(f"{name}: a hash that is not shown (fingerprint {digest(secret)[:8]})\n" for name, _colon, secret in named)


def digests(files: Mapping[str, str]) -> dict[str, str]:
    return {path: digest(text) for path, text in files.items()}


def pack(texts: Mapping[str, str]) -> str:
    """Return files as one word; a thousand sites take some ten kilobytes."""
    return base64.b64encode(zlib.compress(json.dumps(texts).encode(), 6)).decode()


def unpack(packed: str) -> dict[str, str]:
    return json.loads(zlib.decompress(base64.b64decode(packed))) if packed else {}


def no_manifest() -> Manifest:
    """Return the manifest of a host that nothing was published to."""
    return {"format": FORMAT, "host": {"owner": None, "settings": {}, "files": {}}, "scopes": {}}


def files_of(manifest: Manifest) -> dict[str, str]:
    """Return all files of a generation, path to digest."""
    found = dict(manifest["host"]["files"])
    for part in manifest["scopes"].values():
        found.update(part["files"])
    return found


def certificates_of(manifest: Manifest) -> list[str]:
    """Return the names of the certificates that a generation refers to.

    Before they had server names, C(certificates) was a list. A host has what was published to it then.
    """
    return sorted({name for part in manifest["scopes"].values() for name in part["certificates"]})


def streams_of(manifest: Manifest) -> dict[str, dict[str, list[t.Any]]]:
    """Return where each scope's streams are: scope to name to protocol, port, and address or None. Scopes without any have none."""
    return {scope: part["streams"] for scope, part in manifest["scopes"].items() if part.get("streams")}


def at_one_place(one: t.Sequence[t.Any], other: t.Sequence[t.Any]) -> bool:
    """Return whether two streams, each a protocol, a port, and an address or None, are at the same place."""
    return list(one[:2]) == list(other[:2]) and (one[2] == other[2] or None in (one[2], other[2]))


def with_part(manifest: Manifest, scope: str, host: Part, part: Part | None) -> Manifest:
    """Return a manifest in which one scope is replaced, or gone. The others are carried over."""
    scopes = {name: each for name, each in manifest["scopes"].items() if name != scope}
    if part is not None:
        scopes[scope] = part
    return {"format": FORMAT, "host": host, "scopes": dict(sorted(scopes.items()))}


def changed_files(before: Manifest, after: Manifest, drifted: Iterable[str] = ()) -> list[str]:
    """Return the paths that are new, gone or different, in order; drifted ones that stay are different too."""
    live, wanted = files_of(before), files_of(after)
    return sorted({path for path in live.keys() | wanted.keys() if live.get(path) != wanted.get(path)} | (set(drifted) & wanted.keys()))


def differences(state: Mapping[str, t.Any], wanted: Manifest, scope: str) -> list[str]:
    """Return what keeps a host from serving the wanted manifest, a phrase each; nothing means unchanged.

    A file of another scope that was edited is that scope's business.

    :param state: what M(portico.web.nginx_generation) says of the host.
    """
    own = wanted["host"]["files"].keys() | wanted["scopes"].get(scope, {"files": {}})["files"].keys()
    found = [f"{path} differs" for path in changed_files(state["manifest"], wanted, set(state["drifted"]) & own)]
    if not found and state["manifest"] != wanted:
        found.append("the manifest differs")
    missing = sorted(set(certificates_of(wanted)) - set(state["certificates"]))
    found += [f"the certificate {name} has neither a lineage nor a placeholder" for name in missing]
    phrases = {
        "installed": "nginx is not installed",
        "entered": "nginx.conf is not the published one",
        "fitted": "nginx's unit lacks what portico.web adds",
        "active": "nginx does not run",
        "enabled": "nginx does not start with the host",
    }
    found += [phrase for key, phrase in phrases.items() if not state[key]]
    if state["default_site"]:
        found.append("the distribution's default site is switched on")
    if state["installed"] and state["active"] and state["serving"] != state["generation"]:
        found.append("nginx runs another generation than the live one")
    return found
