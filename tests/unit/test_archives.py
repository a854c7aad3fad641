"""Archives: what is in them arrives, and nothing of them lands outside."""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
import zipfile

import pytest

from ansible_collections.portico.web.plugins.module_utils.archives import ArchiveError, contents, suffix, unpack


def tar_of(path, members, mode="w:gz"):
    """Write a tar file of (name, what): text, None for a folder, or a TarInfo's type and target or mode."""
    with tarfile.open(path, mode) as tar:
        for name, what in members:
            info = tarfile.TarInfo(name)
            info.mode = 0o644
            content = None
            if what is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(what, str):
                content = what.encode()
            elif isinstance(what[1], str):
                info.type, info.linkname = what
            else:
                info.type, info.mode = what
            if content is not None:
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if content is not None else None)
    return str(path)


def zip_of(path, members):
    """Write a zip file of (name, text, mode)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            archive.writestr(info, text)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "inside").mkdir()
    return tmp_path / "inside"


def tree(folder):
    return {os.path.relpath(os.path.join(parent, name), folder) for parent, folders, names in os.walk(folder) for name in (*folders, *names)}


@pytest.mark.parametrize(("kind", "mode"), [(".tar.gz", "w:gz"), (".tgz", "w:gz"), (".tar.bz2", "w:bz2"), (".tar.xz", "w:xz")])
def test_a_tar_file_arrives_without_its_top_folder(tmp_path, folder, kind, mode):
    members = [("shop-1.0", None), ("shop-1.0/requirements.txt", "Django\n"), ("shop-1.0/shop/wsgi.py", "x"), ("shop-1.0/now", (tarfile.SYMTYPE, "shop/wsgi.py"))]
    archive = tar_of(tmp_path / f"a{kind}", members, mode)
    assert contents(archive) == {"requirements.txt", "shop/wsgi.py"}
    unpack(archive, str(folder))
    assert tree(folder) == {"requirements.txt", "shop", "shop/wsgi.py", "now"}
    assert (folder / "now").read_text() == "x"


def test_two_things_at_the_top_stay_where_they_are(tmp_path, folder):
    unpack(tar_of(tmp_path / "a.tgz", [("./requirements.txt", ""), ("./shop/a.py", "")]), str(folder))
    assert tree(folder) == {"requirements.txt", "shop", "shop/a.py"}


def test_a_single_file_is_no_folder_to_strip(tmp_path, folder):
    unpack(tar_of(tmp_path / "a.tgz", [("requirements.txt", "")]), str(folder))
    assert tree(folder) == {"requirements.txt"}


def test_a_zip_file_arrives_with_what_is_executable_and_its_links(tmp_path, folder):
    members = [
        ("shop/", "", 0o40755),
        ("shop/manage.py", "#!", 0o100755),
        ("shop/link", "manage.py", stat.S_IFLNK | 0o777),
        ("shop/from-windows.txt", "x", 0),
    ]
    unpack(zip_of(tmp_path / "a.zip", members), str(folder))
    assert tree(folder) == {"manage.py", "link", "from-windows.txt"}
    assert os.readlink(folder / "link") == "manage.py"
    assert os.access(folder / "manage.py", os.X_OK) and stat.S_IMODE((folder / "from-windows.txt").stat().st_mode) == 0o644


def test_setuid_and_odd_modes_do_not_arrive(tmp_path, folder):
    members = [("a/x", (tarfile.REGTYPE, 0o6755)), ("a/y", (tarfile.REGTYPE, 0o1666)), ("a/z", (tarfile.DIRTYPE, 0o7777))]
    unpack(tar_of(tmp_path / "a.tgz", members), str(folder))
    assert stat.S_IMODE((folder / "x").stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "y").stat().st_mode) == 0o644
    assert stat.S_IMODE((folder / "z").stat().st_mode) & 0o7000 == 0


def test_a_hard_link_becomes_the_content_once_more(tmp_path, folder):
    unpack(tar_of(tmp_path / "a.tgz", [("a/one", "text"), ("a/two", (tarfile.LNKTYPE, "a/one"))]), str(folder))
    assert (folder / "two").read_text() == "text"
    (folder / "two").write_text("other")
    assert (folder / "one").read_text() == "text"


HOSTILE = {
    "an absolute path": [("/etc/passwd", "x")],
    "a path that climbs": [("a/../../x", "x")],
    "a path that climbs at once": [("../x", "x")],
    "a link to an absolute path": [("a/x", (tarfile.SYMTYPE, "/etc"))],
    "a link that climbs": [("a/x", (tarfile.SYMTYPE, "../../x")), ("b", "")],
    "a link out of the folder that is stripped": [("a/x", (tarfile.SYMTYPE, "../b")), ("a/y", "")],
    "a link that climbs through another link": [("a/b/c", None), ("a/here", (tarfile.SYMTYPE, ".")), ("a/out", (tarfile.SYMTYPE, "here/../..")), ("a/y", "")],
    "a file through a link": [("a/x", (tarfile.SYMTYPE, "b")), ("a/x/y", "z"), ("a/b", None)],
    "a file below a file": [("a/x", "x"), ("a/x/y", "z")],
    "a hard link to the outside": [("a/x", (tarfile.LNKTYPE, "../../../etc/passwd"))],
    "a hard link to an absolute path": [("a/x", (tarfile.LNKTYPE, "/etc/passwd"))],
    "a hard link to nothing": [("a/x", (tarfile.LNKTYPE, "a/y"))],
    "a device": [("a/x", (tarfile.CHRTYPE, 0o666))],
    "a disk": [("a/x", (tarfile.BLKTYPE, 0o666))],
    "a pipe": [("a/x", (tarfile.FIFOTYPE, 0o666))],
}


def damaged_xz(path):
    with tarfile.open(path, "w:xz") as archive:
        content = random.Random(1).randbytes(200_000)
        member = tarfile.TarInfo("a")
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 0xFF
    path.write_bytes(whole)


def test_an_archive_that_is_damaged_inside_is_told(tmp_path):
    damaged_xz(tmp_path / "a.tar.xz")
    with pytest.raises(ArchiveError, match="cannot be unpacked"):
        unpack(str(tmp_path / "a.tar.xz"), str(tmp_path / "out"))


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_tar_file_is_refused_and_writes_nothing_outside(tmp_path, folder, kind):
    archive = tar_of(tmp_path / "a.tgz", HOSTILE[kind])
    before = tree(tmp_path) - {os.path.relpath(folder / each, tmp_path) for each in tree(folder)}
    with pytest.raises(ArchiveError):
        unpack(archive, str(folder))
    after = {each for each in tree(tmp_path) if not each.startswith("inside/")}
    assert after == before


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if "through another link" not in kind and "stripped" not in kind and "to nothing" not in kind])
def test_most_hostile_tar_files_are_known_before_the_host_is_asked(tmp_path, kind):
    with pytest.raises(ArchiveError):
        contents(tar_of(tmp_path / "a.tgz", HOSTILE[kind]))


@pytest.mark.parametrize(
    "members",
    [
        [("../x", "x", 0o100644)],
        [("/x", "x", 0o100644)],
        [("a/x", "/etc/passwd", stat.S_IFLNK | 0o777)],
        [("a/x", "../../y", stat.S_IFLNK | 0o777)],
        [("a/x", "b", stat.S_IFLNK | 0o777), ("a/x/y", "z", 0o100644)],
        [("a/x", "", stat.S_IFCHR | 0o666)],
    ],
)
def test_a_hostile_zip_file_is_refused(tmp_path, folder, members):
    archive = zip_of(tmp_path / "a.zip", members)
    for refuses in (contents, lambda archive: unpack(archive, str(folder))):
        with pytest.raises(ArchiveError):
            refuses(archive)
    assert tree(folder) == set()


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.xz", "a.zip"])
def test_what_is_no_archive_is_refused_in_words(tmp_path, folder, name):
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(ArchiveError, match="cannot be read"):
        contents(str(tmp_path / name))
    with pytest.raises(ArchiveError, match="cannot be unpacked"):
        unpack(str(tmp_path / name), str(folder))


def test_half_an_archive_is_refused(tmp_path, folder):
    archive = tar_of(tmp_path / "a.tgz", [("a/x", os.urandom(4000).hex())])
    whole = (tmp_path / "a.tgz").read_bytes()
    (tmp_path / "a.tgz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveError, match="cannot be unpacked"):
        unpack(archive, str(folder))


def test_an_archive_that_does_not_fit_is_refused_before_it_is_written(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 3})())
    with pytest.raises(ArchiveError, match="there is room for 0 MiB"):
        unpack(tar_of(tmp_path / "a.tgz", [("a/x", "four")]), str(folder))
    assert tree(folder) == set()


@pytest.mark.parametrize(("name", "known"), [("a.tar.gz", ".tar.gz"), ("a.TGZ", ".tgz"), ("a-1.0-py3-none-any.whl", ".whl"), ("a.tar", None), ("a.gz", None), (".zip", None), ("a.rar", None)])
def test_an_archives_kind_is_known_by_its_suffix(name, known):
    assert suffix(name) == known
