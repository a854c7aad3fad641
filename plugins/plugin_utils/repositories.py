# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The repository that nginx comes from, where that is not the distribution's: C(nginx_repository), checked and complete."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from ansible_collections.portico.web.plugins.module_utils import openpgp, vendors
from ansible_collections.portico.web.plugins.plugin_utils import entries, formats
from ansible_collections.portico.web.plugins.plugin_utils.controller import ReadText
from ansible_collections.portico.web.plugins.plugin_utils.entries import HIDDEN, PorticoError, problem

_VARIABLE: t.Final = "nginx_repository"
_BEGINNING = "-----BEGIN PGP"
_WITH_PASSWORD: t.Final = r"\s*[a-z]+://[^/]*@"


def normalise(value: object) -> dict[str, t.Any]:
    """Return the repository with all its keys; nothing where nginx is the distribution's.

    :raises PorticoError: at the first mistake.
    """
    if value in (None, "", {}):
        return {}
    found = entries.setting(_VARIABLE, value, entries.options("nginx_publish")["repository"], _FORMATS, secret=("key",))
    given = [key for key in ("channel", "url") if found[key] is not None]
    if len(given) != 1:
        raise _mistake("channel or url", HIDDEN, "is missing. Say with one of them where nginx comes from." if not given else "are given together. Keep one.")
    for key in ("url", "key"):
        if re.match(_WITH_PASSWORD, found[key] or "", re.IGNORECASE):
            raise _mistake(key, HIDDEN, "has a name or a password in it, which everybody on the host could read. Put them into /etc/apt/auth.conf.d there (apt_auth.conf(5)), and give the key as a file.")
    if not found["fingerprints"]:
        raise _mistake("fingerprints", [], "is empty, so that nobody is trusted. Write at least one.")
    return dict(found)


def asked(repository: Mapping[str, t.Any], read_text: ReadText) -> dict[str, t.Any] | None:
    """Return what a host is asked for: the repository with the keys that are trusted, or with where it fetches them; None for none.

    :param repository: what L(normalise) returns.
    :param read_text: returns the text of a file on the controller; L(controller.reader) makes one.
    :raises PorticoError: where a key that the controller has is not one that is trusted.
    """
    if not repository:
        return None
    key = repository["key"]
    if _is_url(key):
        return {**repository, "key": None, "key_url": key}
    shown = HIDDEN if key.startswith(_BEGINNING) else key
    try:
        text = key if shown is HIDDEN else read_text(key)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise _mistake("key", shown, f"cannot be read on the controller: {why}. Give the key in ASCII armour, the path of such a file, or its URL.") from error
    try:
        return {**repository, "key": openpgp.armoured(openpgp.chosen(text.encode(), repository["fingerprints"])), "key_url": None}
    except ValueError as error:
        raise _mistake("key", shown, str(error)) from error


def refuse_to_replace(state: Mapping[str, t.Any], packages: Sequence[str]) -> None:
    """Refuse a host that has the distribution's nginx.

    :param packages: those that nginx would be, by Debian's names.
    :raises PorticoError: saying how to go on.
    """
    if state["distributions"]:
        version = f" {'.'.join(map(str, state['version']))}" if state["installed"] else ""
        names = [name for name in vendors.renamed(packages) if name.startswith("nginx")]
        raise PorticoError(
            f"{_VARIABLE}: this host has nginx{version} of the distribution. apt would stop it and take it off, with its modules, before it puts another "
            f"in its place, and so nothing was changed. See first that the repository has {' and '.join(names)} for it. "
            "When the sites may be away for a minute, run 'apt-get remove nginx nginx-common' and then this play again: it brings them back."
        )


def _mistake(key: str, value: object, why: str) -> PorticoError:
    return problem(_VARIABLE, None, key, value, why)


def _is_url(value: str) -> bool:
    return value.lower().startswith(("https://", "http://"))


def _url(value: str) -> str:
    if re.match(_WITH_PASSWORD, value, re.IGNORECASE):
        return value  # refused below, without being shown
    url = urlsplit(formats.printable(value))
    is_file = url.scheme == "file" and not url.netloc and url.path.startswith("/")
    if not is_file and (url.scheme not in ("http", "https") or not url.hostname) or url.query or url.fragment or re.search(r"\s|[][\"']", value):
        raise ValueError("is not the URL of a repository. Write one such as https://mirror.example.com/nginx/debian, or file:/srv/nginx.")
    # As apt writes it.
    return f"file:{url.path.rstrip('/')}" if is_file else value.rstrip("/")


def _key(value: str) -> str:
    return value if value.startswith(_BEGINNING) or re.match(_WITH_PASSWORD, value, re.IGNORECASE) else formats.printable(value)


def _fingerprint(value: str) -> str:
    written = re.sub(r"\s", "", value).upper()
    if not re.fullmatch(r"[0-9A-F]{40}", written):
        raise ValueError("is not the fingerprint of a key. Write all 40 of its hexadecimal digits; the last of them alone are easily forged.")
    return written


_FORMATS: t.Final[dict[str, entries.Format]] = {"url": _url, "key": _key, "fingerprints": _fingerprint}
