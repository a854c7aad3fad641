"""The generations on a host: who reads what is written there."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.portico.web.plugins.module_utils import files, layout, store
from ansible_collections.portico.web.plugins.module_utils.generation import no_manifest, shown

TREE = {"nginx.conf": "user www-data;\n", "sites/a.conf": "# a\n", "pages/404.html": "<p>", "passwords/main/staff": "anna:hash\n"}


@pytest.fixture
def host(monkeypatch, tmp_path):
    """One whose root has the widest umask there is, and whose nginx has the group of whoever runs the test."""
    monkeypatch.setattr(layout, "NGINX", f"{tmp_path}/nginx")
    monkeypatch.setattr(store, "GENERATIONS", f"{tmp_path}/nginx/generations")
    monkeypatch.setattr(store.grp, "getgrnam", lambda name: {"www-data": SimpleNamespace(gr_gid=os.getegid())}[name])
    before = os.umask(0)
    yield tmp_path
    os.umask(before)


def test_a_generation_is_read_by_root_and_nginx_alone(host):
    live = Path(store.folder(store.make(TREE, no_manifest(), "a test")))
    assert stat.S_IMODE(live.stat().st_mode) == 0o750
    found = {str(path.relative_to(live)): stat.S_IMODE(path.stat().st_mode) for path in live.rglob("*") if path.is_file() and not path.is_symlink()}
    assert found.keys() == {*TREE, "marker.conf", "manifest.json"}
    assert set(found.values()) == {0o640}


def test_what_nginx_only_tests_is_read_by_no_others_either(host):
    store.write_tree(f"{host}/stage/portico", TREE, "")
    assert {stat.S_IMODE((host / "stage/portico" / path).stat().st_mode) for path in TREE} == {0o640}


def test_a_link_that_leads_nowhere_is_a_file_with_nothing_in_it(host):
    number = store.make(TREE, no_manifest(), "")
    for name, target in (("nowhere.conf", "gone"), ("circle.conf", "circle.conf"), ("file.conf", "nginx.conf/gone")):
        os.symlink(target, f"{store.folder(number)}/{name}")
    os.symlink("nginx.conf", f"{store.folder(number)}/there.conf")
    assert store.texts(number) == {**TREE, "nowhere.conf": "", "circle.conf": "", "file.conf": "", "there.conf": TREE["nginx.conf"]}


def test_what_is_there_and_cannot_be_read_is_not_taken_for_nothing(host):
    number = store.make(TREE, no_manifest(), "")
    os.symlink(".", f"{store.folder(number)}/folder.conf")
    assert "folder.conf" not in store.texts(number)
    with pytest.raises(IsADirectoryError):
        files.read_exactly(store.folder(number))


def test_where_nginx_has_no_user_its_root_reads_it(host, monkeypatch):
    monkeypatch.setattr(layout, "NGINX_USER", "somebody-else")
    store.write_tree(f"{host}/stage/portico", TREE, "")
    assert {(path.stat().st_gid, stat.S_IMODE(path.stat().st_mode)) for path in map((host / "stage/portico").joinpath, TREE)} == {(os.getegid(), 0o640)}


def test_what_nobody_published_is_carried_over_to_the_byte(host):
    content = b"\xab\xcdMaxMind.com\r\n\xff \xc3\xa9"
    number = store.make({"nginx.conf": "é\n"}, no_manifest(), "")
    with open(f"{store.folder(number)}/geo.mmdb", "wb") as file:
        file.write(content)
    following = store.make(store.texts(number), no_manifest(), "")
    with open(f"{store.folder(following)}/geo.mmdb", "rb") as file:
        assert file.read() == content
    assert store.texts(following)["nginx.conf"] == "é\n"
    # A diff has it as far as it is text.
    assert "MaxMind.com" in shown("geo.mmdb", store.texts(following)["geo.mmdb"]).encode().decode()
