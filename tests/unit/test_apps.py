"""Apps: from what people write to what a host is told."""

from __future__ import annotations

import os
import re
import shlex
import tarfile

import pytest

from ansible_collections.portico.web.plugins.plugin_utils.apps import (
    check_folders,
    environment_file,
    folder_digest,
    host_files,
    normalise_apps,
    pack,
    release_id,
)
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError

SHOP = {"name": "shop", "source": {"path": "shop"}, "app": "shop.wsgi:application"}


@pytest.fixture
def folder(tmp_path):
    shop = tmp_path / "shop"
    (shop / "shop").mkdir(parents=True)
    (shop / "requirements.txt").write_text("Django\n")
    (shop / "shop" / "wsgi.py").write_text("application = None\n")
    manage = shop / "manage.py"
    manage.write_text("#!/usr/bin/env python\n")
    manage.chmod(0o755)
    return shop


def test_what_is_not_said_is_filled_in():
    (app,) = normalise_apps([SHOP])
    assert {key: value for key, value in app["source"].items() if value is not None} == {"path": "shop"}
    assert (app["requirements"], app["installer"], app["index"]) == (None, "auto", None)
    assert (app["python"], app["workers"], app["threads"]) == ("/usr/bin/python3", 2, 4)
    assert (app["static"], app["environment"], app["before_traffic"]) == ({}, {}, [])


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "Shop"}, ["name", "Shop"]),
        ({"name": "s" * 25}, ["name", "at most 24"]),
        ({"source": {}}, ["source.path or source.git", "is missing"]),
        ({"source": {"path": "a", "git": "https://x.example/a.git", "version": "v1"}}, ["together"]),
        ({"source": {"git": "https://x.example/a.git"}}, ["source.version", "is missing"]),
        ({"source": {"path": "a", "version": "v1"}}, ["source.version", "v1", "no meaning"]),
        ({"source": {"git": "--upload-pack=x", "version": "v1"}}, ["source.git", "--upload-pack=x"]),
        ({"source": {"git": "https://x.example/a.git", "version": "-x"}}, ["source.version", "-x"]),
        ({"source": {"path": "a", "branch": "v1"}}, ["source.branch"]),
        ({"app": "shop.wsgi"}, ["app", "shop.wsgi", "module:callable"]),
        ({"app": "shop:app; rm"}, ["app", "module:callable"]),
        ({"static": {"static/": "files"}}, ["static", "static/"]),
        ({"static": {"/": "files"}}, ["static", "'/'"]),
        ({"static": {"/static": "files"}}, ["static", "'/static'"]),
        ({"static": {"/static/": "../files"}}, ["static", "'/static/'"]),
        ({"static": {"/static/": "/etc"}}, ["static", "'/static/'"]),
        ({"requirements": "../requirements.txt"}, ["requirements", "../requirements.txt"]),
        ({"python": "python3"}, ["python", "python3"]),
        ({"before_traffic": ["echo 'a"]}, ["before_traffic", "echo 'a"]),
        ({"before_traffic": ["  "]}, ["before_traffic", "is empty"]),
        ({"workers": 0}, ["workers", "0"]),
        ({"workers": "many"}, ["workers", "many"]),
        ({"timeout": -1}, ["timeout", "-1"]),
        ({"enviroment": {}}, ["enviroment", "environment"]),
    ],
)
def test_a_mistake_is_told_with_its_key_and_value(wrong, words):
    with pytest.raises(PorticoError) as told:
        normalise_apps([SHOP | wrong])
    assert str(told.value).startswith("gunicorn_apps, entry \"")
    for word in words:
        assert word in str(told.value)


@pytest.mark.parametrize("environment", [{"A B": "hunter2x"}, {"A": ["hunter2x"]}, {"A": "hunter2x\0"}, {"A": "\x1bhunter2x"}, "hunter2x"])
def test_a_mistake_in_an_environment_shows_no_value(environment):
    with pytest.raises(PorticoError) as told:
        normalise_apps([SHOP | {"environment": environment}])
    assert "environment" in str(told.value)
    assert "hunter2x" not in str(told.value)


def test_a_source_that_is_not_there_is_refused(folder):
    apps = normalise_apps([SHOP])
    check_folders(apps, lambda path: str(folder.parent / path))
    with pytest.raises(PorticoError, match=r"source.path.*shop.*is not a folder"):
        check_folders(apps, lambda path: str(folder / path / "nothing"))
    (folder / "requirements.txt").rename(folder / "requirement.txt")
    with pytest.raises(PorticoError, match=r"requirements.*has no uv.lock.*It has requirement\.txt"):
        check_folders(apps, lambda path: str(folder.parent / path))


def test_a_folders_fingerprint_is_of_what_is_in_it_alone(folder):
    before = folder_digest(folder)
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")
    (folder / "shop" / "__pycache__").mkdir()
    (folder / "shop" / "wsgi.pyc").write_text("x")
    os.utime(folder / "manage.py", (0, 0))
    assert folder_digest(folder) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "manage.py").write_text("other"),
        lambda folder: (folder / "manage.py").chmod(0o644),
        lambda folder: (folder / "manage.py").rename(folder / "manage2.py"),
        lambda folder: (folder / "more").mkdir(),
        lambda folder: (folder / "link").symlink_to("manage.py"),
        lambda folder: ((folder / "shop" / "wsgi.py").rename(folder / "wsgi.py")),
    ],
)
def test_another_folder_has_another_fingerprint(folder, change):
    before = folder_digest(folder)
    change(folder)
    assert folder_digest(folder) != before


def test_an_archive_holds_the_folder_without_what_development_leaves(folder, tmp_path):
    (folder / ".venv").mkdir()
    (folder / "link").symlink_to("manage.py")
    pack(folder, tmp_path / "shop.tar.gz")
    with tarfile.open(tmp_path / "shop.tar.gz") as tar:
        assert sorted(tar.getnames()) == ["link", "manage.py", "requirements.txt", "shop", "shop/wsgi.py"]
        assert tar.getmember("manage.py").mode & 0o100


def test_a_release_is_known_by_what_goes_into_it():
    (app,) = normalise_apps([SHOP])
    known = release_id(app, "digest", "3.13.5")
    assert release_id(app | {"workers": 9, "environment": {"A": "b"}}, "digest", "3.13.5") == known
    others = {
        release_id(app, "another", "3.13.5"),
        release_id(app, "digest", "3.13.6"),
        release_id(app | {"before_traffic": ["true"]}, "digest", "3.13.5"),
        release_id(app | {"static": {"/s/": "s"}}, "digest", "3.13.5"),
        release_id(app | {"requirements": "other.txt"}, "digest", "3.13.5"),
    }
    assert len(others) == 5 and known not in others


def read_as_systemd(text: str) -> dict[str, str]:
    """Read an environment file by the rules of systemd.exec(5) for double quotes."""
    found = {}
    for name, quoted in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"\n', text, re.S):
        found[name] = re.sub(r'\\(["\\$`])', r"\1", quoted)
    return found


@pytest.mark.parametrize("value", ["", "plain", "a b", '"', "'", "\\", "\\\\n", "$HOME ${HOME} %h", "`id`", "# no comment", "two\nlines\n", "tab\t", "é✓", "a\\"])
def test_an_environment_comes_back_byte_for_byte(value):
    text = environment_file({"A": value, "B": "after"})
    assert read_as_systemd(text) == {"A": value, "B": "after"}


def test_what_the_host_is_told_holds_no_secret_and_no_loose_value():
    (app,) = normalise_apps([SHOP | {"environment": {"SECRET_KEY": "hunter2x"}, "workers": 3}])
    files = host_files(app, "www-data")
    assert not any("hunter2x" in text for text in files.values())
    service = files["/etc/systemd/system/portico-shop@.service"]
    assert shlex.split(re.search(r"^ExecStart=(.*)$", service, re.M).group(1))[-2:] == ["--config", "/etc/portico/apps/shop/%i.conf.py"]
    assert "ListenStream=/run/portico/shop/%i.sock\n" in files["/etc/systemd/system/portico-shop@.socket"]
    settings = {}
    exec(compile(files["/etc/portico/apps/shop/%i.conf.py"], "shop.conf.py", "exec"), settings)
    assert (settings["wsgi_app"], settings["workers"], settings["proc_name"]) == ("shop.wsgi:application", 3, "shop")
