# Copyright: Contributors to the Portico project
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Archives that people made: read on the controller and unpacked on a host, where nothing of them may land outside a folder."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import typing as t
import zipfile
import zlib
from collections.abc import Iterator

TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
SUFFIXES = (*TAR_SUFFIXES, ".zip")
WHEEL = ".whl"

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError, UnicodeDecodeError, NotImplementedError, RuntimeError)
"""What the standard library raises for archives that are no archives, or damaged, or locked with a password."""


class ArchiveError(Exception):
    """Why an archive is not unpacked: the end of a message that begins with its name."""


class Member(t.NamedTuple):
    """A file, a folder (no content) or a link (its target) of an archive."""

    path: str
    kind: str
    """C(file), C(program), C(folder) or C(link)."""
    size: int
    target: str
    read: t.Callable[[], t.IO[bytes] | None]


def suffix(name: str) -> str | None:
    """Return the suffix by which an archive's kind is known."""
    return next((each for each in (*SUFFIXES, WHEEL) if name.lower().endswith(each) and len(name) > len(each)), None)


def contents(archive: str) -> set[str]:
    """Return the paths of an archive's files, without the one folder that all may be in.

    :raises ArchiveError: for an archive that must not be unpacked, or cannot be.
    """
    try:
        with _opened(archive) as members:
            files, _links = _checked(members)
    except _BROKEN as error:
        raise ArchiveError(f"cannot be read: {error}") from error
    top = _single_top(files)
    return {path[len(top) :] for path, member in files.items() if member.kind != "folder" and path.startswith(top)}


def unpack(archive: str, folder: str) -> None:
    """Unpack an archive into an empty folder; a single folder at its top is left out.

    What arrives are files, folders and links that stay inside; of a file's mode only whether it is executable. Links are made last,
    so that nothing is ever written through one, and then followed for real: C(link/..) is not where it is written.

    :raises ArchiveError: before anything is written, where that can be known.
    """
    try:
        with _opened(archive) as members:
            files, links = _checked(members)
            needed, free = sum(member.size for member in files.values()), shutil.disk_usage(folder).free
            if needed > free:
                raise ArchiveError(f"holds {needed >> 20} MiB, and there is room for {free >> 20} MiB")
            top = _single_top({**files, **links})
            for path, member in files.items():
                _make(os.path.join(folder, path[len(top) :]), member)
            for path, member in links.items():
                link = os.path.join(folder, path[len(top) :])
                os.makedirs(os.path.dirname(link), exist_ok=True)
                os.symlink(member.target, link)
    except _BROKEN as error:
        raise ArchiveError(f"cannot be unpacked: {error}") from error
    root = os.path.realpath(folder)
    for path, member in links.items():
        leads = os.path.realpath(os.path.join(folder, path[len(top) :]))
        if os.path.commonpath((root, leads)) != root:
            raise ArchiveError(f"has the link {path!r}, which leads outside, to {member.target!r}")


def _make(path: str, member: Member) -> None:
    if member.kind == "folder":
        os.makedirs(path, exist_ok=True)
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    source = member.read()
    if source is None:
        raise ArchiveError(f"has no content for {member.path!r}")
    # Made anew and never opened through something that is there.
    with source, os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
        shutil.copyfileobj(source, file)
    os.chmod(path, 0o755 if member.kind == "program" else 0o644)


def _checked(members: Iterator[Member]) -> tuple[dict[str, Member], dict[str, Member]]:
    """Return files with folders, and links, by their paths, which are all inside.

    Of two with one path the last counts, as tar itself has it.
    """
    found: dict[str, Member] = {}
    for member in members:
        path = _inside(member.path)
        if path:
            found.pop(path, None)
            found[path] = member
    links = {path: member for path, member in found.items() if member.kind == "link"}
    files = {path: member for path, member in found.items() if member.kind != "link"}
    for path, member in links.items():
        if member.target.startswith("/") or os.path.normpath(os.path.join(os.path.dirname(path), member.target)).split("/")[0] == "..":
            raise ArchiveError(f"has the link {path!r}, which leads outside, to {member.target!r}")
    plain = links.keys() | {path for path, member in files.items() if member.kind != "folder"}
    for path in found:
        parent = os.path.dirname(path)
        while parent:
            if parent in plain:
                raise ArchiveError(f"has {path!r} below {parent!r}, which is no folder")
            parent = os.path.dirname(parent)
    return files, links


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ArchiveError(f"has the path {path!r}, which leads outside")
    normal = os.path.normpath(path)
    return "" if normal == "." else normal


def _single_top(found: dict[str, Member]) -> str:
    """Return the one folder that everything is in, with its slash; nothing where there is none."""
    tops = {path.split("/", 1)[0] for path in found}
    if len(tops) != 1 or not any("/" in path for path in found):
        return ""
    return f"{tops.pop()}/"


class _opened:
    """An archive as its members."""

    def __init__(self, archive: str) -> None:
        self.archive = archive
        self.file: tarfile.TarFile | zipfile.ZipFile | None = None

    def __enter__(self) -> Iterator[Member]:
        if suffix(self.archive) in (".zip", WHEEL):
            self.file = zipfile.ZipFile(self.archive)
            return _of_zip(self.file)
        self.file = tarfile.open(self.archive, "r:*")
        return _of_tar(self.file)

    def __exit__(self, *_error: object) -> None:
        if self.file is not None:
            self.file.close()


def _of_tar(tar: tarfile.TarFile) -> Iterator[Member]:
    for info in tar:
        if info.isdir():
            yield Member(info.name, "folder", 0, "", lambda: None)
        elif info.issym():
            yield Member(info.name, "link", 0, info.linkname, lambda: None)
        elif info.isreg() or info.islnk():
            if info.islnk():
                # A hard link is the other file's content once more.
                _inside(info.linkname)
            size = 0 if info.islnk() else info.size
            yield Member(info.name, "program" if info.mode & stat.S_IXUSR else "file", size, "", lambda info=info: _of_file(tar, info))
        else:
            raise ArchiveError(f"has {info.name!r}, which is a device or a pipe")


def _of_file(tar: tarfile.TarFile, info: tarfile.TarInfo) -> t.IO[bytes] | None:
    try:
        return tar.extractfile(info)
    except KeyError:
        raise ArchiveError(f"has the hard link {info.name!r} to {info.linkname!r}, which is not in it") from None


def _of_zip(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        # The upper half is the mode, where the archive was made on a system that has modes.
        mode = info.external_attr >> 16
        kind = stat.S_IFMT(mode)
        if info.is_dir():
            yield Member(info.filename, "folder", 0, "", lambda: None)
        elif kind == stat.S_IFLNK:
            yield Member(info.filename, "link", 0, archive.read(info).decode("utf-8", "surrogateescape"), lambda: None)
        elif kind in (0, stat.S_IFREG):
            yield Member(info.filename, "program" if mode & stat.S_IXUSR else "file", info.file_size, "", lambda info=info: archive.open(info))
        else:
            raise ArchiveError(f"has {info.filename!r}, which is a device or a pipe")
