# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files and links that are there wholly or not at all, whenever the process or the machine stops."""

from __future__ import annotations

import contextlib
import hashlib
import os
import typing as t

SUFFIX = ".portico-new"
"""Of what is not in its place yet. A run that was killed may leave one, and the next of the same name replaces it."""


def digest(text: str) -> str:
    """Return the fingerprint of a text, by which the controller and a host know that they mean the same."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def write(path: str, text: str, mode: int = 0o644) -> None:
    """Write a file in one step: who reads it finds the old text or the new one."""
    write_bytes(path, text.encode(), mode)


def write_bytes(path: str, content: bytes, mode: int = 0o644) -> None:
    """Write a file in one step: who reads it finds the old content or the new one."""
    new = path + SUFFIX
    remove(new)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(new, mode)
        os.rename(new, path)
    except BaseException:
        # Half of a secret, maybe, and room on a disk that is full.
        remove(new)
        raise


def point(link: str, target: str, new: str | None = None) -> None:
    """Make a symlink, or move it, in one step.

    :param new: where it is made first, if that cannot be beside it.
    """
    new = new or link + SUFFIX
    remove(new)
    os.symlink(target, new)
    os.rename(new, link)


def open_folders(*paths: str) -> None:
    """Make folders, and those above them, that everybody may pass through; and make such of those that are there.

    Where root's umask is narrow, makedirs() would make them for root alone.
    """
    for path in paths:
        above = path
        while not os.path.isdir(above):
            above = os.path.dirname(above)
        os.makedirs(path, exist_ok=True)
        while path != above:
            os.chmod(path, 0o755)
            path = os.path.dirname(path)
    for path in paths:
        os.chmod(path, 0o755)


def remove(path: str) -> None:
    """Remove a file or a link, if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def read(path: str) -> str | None:
    """Return a file's text, or None where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return None


def read_exactly(path: str) -> str:
    """Return a file's text whose bytes are the same when it is encoded again with C(surrogateescape), whatever they are; of a link to nothing, nothing."""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().decode(errors="surrogateescape")
    except OSError:
        if os.path.exists(path):
            raise
        return ""


def target(link: str) -> str | None:
    """Return where a symlink leads, or None where there is none."""
    return os.readlink(link) if os.path.islink(link) else None


class LogFromNow:
    """What is written to a log from now on, whether it is appended to or begun anew."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.inode, self.size = self._now()

    def read(self) -> str:
        inode, size = self._now()
        try:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                file.seek(self.size if inode == self.inode and size >= self.size else 0)
                return file.read()
        except FileNotFoundError:
            return ""

    def _now(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_size


def restored(path: str) -> t.Callable[[], None]:
    """Return the step that makes a file or a link what it is now: that text, that target, or nothing."""
    leads = target(path)
    if leads is not None:
        return lambda: point(path, leads)
    text = read(path)
    if text is not None:
        return lambda: write(path, text)
    return lambda: remove(path)
