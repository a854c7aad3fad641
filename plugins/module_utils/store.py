# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The generations on a host: directories that are never edited, and the link that names the live one."""

from __future__ import annotations

import grp
import json
import os
import shutil
import tempfile
import time
import typing as t

from ansible_collections.portico.web.plugins.module_utils import files, layout
from ansible_collections.portico.web.plugins.module_utils.generation import CERTIFICATES, FORMAT, MANIFEST, MARKER, NOT_CARRIED, Manifest, files_of, is_secret, no_manifest

LIVE = layout.NGINX + "/live"
GENERATIONS = layout.NGINX + "/generations"
KEPT = 5
_UNFINISHED = ".new-"


def numbers() -> list[int]:
    """Return the numbers of the kept generations, oldest first."""
    return sorted(int(name) for name in os.listdir(GENERATIONS) if name.isdigit()) if os.path.isdir(GENERATIONS) else []


def live_number() -> int:
    """Return the number of the live generation; 0 where there is none."""
    name = os.path.basename(files.target(LIVE) or "")
    return int(name) if name.isdigit() and os.path.isdir(LIVE) else 0


def folder(number: int) -> str:
    return f"{GENERATIONS}/{number}"


def manifest(number: int) -> Manifest:
    """Return what a generation is made of; with the number 0, of nothing."""
    if not number:
        return no_manifest()
    text = files.read(f"{folder(number)}/{MANIFEST}")
    return {key: value for key, value in json.loads(text).items() if key in no_manifest()} if text else _manifest_of_all(number)


def history() -> list[dict[str, t.Any]]:
    """Return the kept generations, newest first: number, made (UTC), why, and the number of each scope's sites."""
    found = []
    for number in reversed(numbers()):
        made = json.loads(files.read(f"{folder(number)}/{MANIFEST}") or "{}")
        sites = {scope: len(part["sites"]) for scope, part in manifest(number)["scopes"].items()}
        found.append({"generation": number, "made": made.get("made", ""), "why": made.get("why", ""), "sites": sites})
    return found


def texts(number: int) -> dict[str, str]:
    """Return path -> text of everything in a generation that the next one takes over, strangers' files too."""
    found = {}
    top = f"{folder(number)}/"
    for parent, _folders, names in os.walk(top) if number else []:
        for name in names:
            path = os.path.join(parent, name)
            relative = path.removeprefix(top)
            if relative not in NOT_CARRIED and not relative.endswith(files.SUFFIX):
                found[relative] = files.read_exactly(path)
    return found


def passwords(number: int, described: Manifest) -> dict[str, str]:
    """Return path -> text of the hashes of passwords in a generation.

    :param described: its manifest.
    """
    found = {path: files.read(f"{folder(number)}/{path}") for path in files_of(described) if is_secret(path)}
    return {path: text for path, text in found.items() if text is not None}


def drifted(described: Manifest, there: t.Mapping[str, str]) -> list[str]:
    """Return the published files that are not as they were published.

    :param described: a generation's manifest.
    :param there: its texts.
    """
    return sorted(path for path, known in files_of(described).items() if path not in there or files.digest(there[path]) != known)


def write_tree(where: str, tree: dict[str, str], marker: str) -> None:
    """Write a configuration: its files, the marker, and the link through which it names certificates.

    Root and nginx read it, and nobody else: who is let in and what runs where is no business of others who have a login.
    nginx's workers, which are not root, read pages and hashes of passwords while they serve.
    """
    group = _group_of_nginx()
    for path, text in {**tree, MARKER: marker}.items():
        parent = os.path.dirname(f"{where}/{path}")
        if not os.path.isdir(parent):
            files.open_folders(parent)
        with open(os.open(f"{where}/{path}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            os.fchown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), 0o640)
    os.symlink(layout.CERTIFICATES, f"{where}/{CERTIFICATES}")


def _group_of_nginx() -> int:
    """Return the group of nginx's workers. Where there is none nginx does not start, and says why; root's own is as good then."""
    try:
        return grp.getgrnam(layout.NGINX_USER).gr_gid
    except KeyError:
        return os.getegid()


def make(tree: dict[str, str], described: Manifest, why: str) -> int:
    """Write a generation. It has its number only when it is complete and on the disk.

    :returns: its number.
    """
    files.open_folders(GENERATIONS, layout.NGINX)
    number = max([0, *numbers()]) + 1
    new = tempfile.mkdtemp(dir=GENERATIONS, prefix=_UNFINISHED)
    try:
        write_tree(new, tree, layout.NGINX_MARKER.format(number=number))
        made = {**described, "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "why": why}
        files.write(f"{new}/{MANIFEST}", json.dumps(made, indent=1) + "\n", 0o640)
        os.chown(new, -1, _group_of_nginx())
        os.chmod(new, 0o750)
        # One call for a thousand files: a generation that a power cut emptied must not be live after it.
        os.sync()
        os.rename(new, folder(number))
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return number


def clear_leftovers() -> None:
    """Remove what a killed run had not finished. Only who holds the lock may."""
    for name in os.listdir(GENERATIONS) if os.path.isdir(GENERATIONS) else []:
        if name.startswith(_UNFINISHED):
            shutil.rmtree(f"{GENERATIONS}/{name}")
    files.remove(LIVE + files.SUFFIX)


def prune(needed: t.Iterable[int]) -> None:
    """Remove all but the newest generations and those that are needed, whatever their age."""
    for number in numbers()[:-KEPT]:
        if number not in needed:
            shutil.rmtree(folder(number))


def _manifest_of_all(number: int) -> Manifest:
    """Describe a generation from before there were manifests: all of it was published by one play."""
    found = {path: files.digest(text) for path, text in texts(number).items()}
    own = {path: each for path, each in found.items() if path.startswith("sites/")}
    host = {path: each for path, each in found.items() if path not in own}
    names = {os.path.basename(path).removesuffix(".conf"): [] for path in own}
    part = {"sites": names, "certificates": {}, "files": own}
    return {"format": FORMAT, "host": {"owner": None, "settings": {}, "files": host}, "scopes": {layout.NGINX_SCOPE: part}}
