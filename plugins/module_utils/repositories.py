# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The repository that apt takes nginx from, where that is not the distribution's: two files of apt, and whether they are as they should be.

A repository is what M(portico.web.nginx_publish) is told of it: C(channel) or C(url), C(fingerprints), and C(key), the chosen keys in
ASCII armour, or C(key_url), where they are fetched from.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping
from urllib.parse import urlsplit

from ansible_collections.portico.web.plugins.module_utils import files, openpgp

SOURCES: t.Final = "/etc/apt/sources.list.d/portico-nginx.sources"
PREFERENCES: t.Final = "/etc/apt/preferences.d/portico-nginx.pref"
FILES: t.Final = (SOURCES, PREFERENCES)

_VENDOR = "https://nginx.org/packages"
_CHANNELS: t.Final[Mapping[str, str]] = {"stable": "", "mainline": "/mainline"}
_DISTRIBUTIONS = ("debian", "ubuntu")
_OS_RELEASE = "/etc/os-release"
_PRIORITY = 900
"""More than any repository has of itself, and too little to put an older version in the place of a newer one (apt_preferences(5))."""

Repository = Mapping[str, t.Any]


class RepositoryError(Exception):
    """Why a repository cannot be used, in words for the person."""


def address(repository: Repository, release: Mapping[str, str]) -> str:
    """Return the URL of a repository for a host.

    :param release: what L(release) returns.
    :raises RepositoryError: where nginx's vendor has none for its distribution.
    """
    if repository["url"]:
        return str(repository["url"])
    if release.get("ID") not in _DISTRIBUTIONS:
        raise RepositoryError(f"nginx.org has packages for Debian and Ubuntu, and this host says that it is {release.get('ID', 'nothing')!r} ({_OS_RELEASE}). Give the url of a repository for it.")
    return f"{_VENDOR}{_CHANNELS[repository['channel']]}/{release['ID']}"


def texts(repository: Repository, release: Mapping[str, str], keyring: bytes) -> dict[str, str]:
    """Return the two files, path to text.

    :param keyring: the keys that are trusted.
    :raises RepositoryError: where the host does not say which release it is.
    """
    url = address(repository, release)
    if not release.get("VERSION_CODENAME"):
        raise RepositoryError(f"This host does not say the name of its release, such as trixie (VERSION_CODENAME of {_OS_RELEASE}), by which repositories are divided.")
    key = "".join(f" {line or '.'}\n" for line in openpgp.armoured(keyring).splitlines())
    # What is trusted is written down, because the file that was fetched may have had fewer keys.
    trusted = f"# Keys: {' '.join(repository['fingerprints'])} of {repository['key_url'] or 'the play'}\n"
    sources = f"# Written by portico.web: change nginx_repository, not this file.\n{trusted}Types: deb\nURIs: {url}\nSuites: {release['VERSION_CODENAME']}\nComponents: nginx\nSigned-By:\n{key}"
    pin = f'# Written by portico.web: nginx comes from the repository of nginx_repository.\nPackage: nginx nginx-*\nPin: origin "{_host(url)}"\nPin-Priority: {_PRIORITY}\n'
    return {SOURCES: sources, PREFERENCES: pin}


def _host(url: str) -> str:
    """Return the host of a URL as it is written there; apt compares letter by letter. A file's is none."""
    return urlsplit(url).netloc.rpartition("@")[2].rpartition("]")[0].lstrip("[") or re.sub(r":\d*$", "", urlsplit(url).netloc)


def is_there(repository: Repository | None) -> bool:
    """Return whether apt has the repository, and so its files are what they should be; with none, whether there are no such files."""
    there = {path: files.read(path) for path in FILES}
    if repository is None:
        return not any(text is not None for text in there.values())
    try:
        keyring = _keyring_of(there[SOURCES] or "")
        wanted = openpgp.armoured(keyring) == repository["key"] if repository["key"] else openpgp.chosen(keyring, repository["fingerprints"]) == keyring
        return wanted and there == texts(repository, release(), keyring)
    except (ValueError, RepositoryError):
        return False


def release() -> dict[str, str]:
    """Return what the host says of itself (os-release(5))."""
    return dict(re.findall(r"^([A-Z_]+)=[\"']?([^\"'\n]*)[\"']?$", files.read(_OS_RELEASE) or "", re.MULTILINE))


def _keyring_of(sources: str) -> bytes:
    block = sources.partition("Signed-By:\n")[2]
    lines = (line.removeprefix(" ") for line in block.splitlines())
    return b"".join(openpgp.keys("\n".join("" if line == "." else line for line in lines).encode()).values())
