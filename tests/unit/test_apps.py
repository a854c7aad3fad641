"""Apps: from what people write to what a host is told."""

from __future__ import annotations

import os
import re
import shlex
import tarfile

import pytest

from ansible_collections.portico.web.plugins.plugin_utils.apps import (
    app_at,
    check_folders,
    environment_file,
    fingerprint,
    folder_digest,
    host_files,
    normalise_apps,
    pack,
    present,
    public_index,
    release_id,
    secrets,
)
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.sites import normalise_sites

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
    assert (app["python"], app["workers"], app["threads"]) == ("/usr/bin/python3", None, None)
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


@pytest.mark.parametrize("name", ["PATH", "NOTIFY_SOCKET", "LISTEN_FDS", "STATE_DIRECTORY"])
def test_what_an_app_runs_by_is_not_its_environment(name):
    with pytest.raises(PorticoError, match=f'entry "shop", key "environment": has {name}, which '):
        normalise_apps([SHOP | {"environment": {name: "/opt/x"}}])


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
        release_id(app | {"python": "/opt/python/bin/python3"}, "digest", "3.13.5"),
        release_id(app, "digest", "3.13.6"),
        release_id(app | {"before_traffic": ["true"]}, "digest", "3.13.5"),
        release_id(app | {"static": {"/s/": "s"}}, "digest", "3.13.5"),
        release_id(app | {"requirements": "other.txt"}, "digest", "3.13.5"),
        release_id(app | {"shared": ["media"]}, "digest", "3.13.5"),
    }
    assert len(others) == 7 and known not in others


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
    service = files["/etc/systemd/system/portico-shop@%i.service"]
    assert shlex.split(re.search(r"^ExecStart=(.*)$", service, re.M).group(1))[-2:] == ["--config", "/etc/portico/apps/shop/%i.conf.py"]
    assert "ListenStream=/run/portico/shop/%i.sock\n" in files["/etc/systemd/system/portico-shop@%i.socket"]
    settings = {}
    exec(compile(files["/etc/portico/apps/shop/%i.conf.py"], "shop.conf.py", "exec"), settings)
    assert (settings["wsgi_app"], settings["workers"], settings["proc_name"]) == ("shop.wsgi:application", 3, "shop")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"shared": ["/media"]}, ["shared", "/media", "inside the source"]),
        ({"shared": ["../media"]}, ["shared", "../media"]),
        ({"shared": ["media", "media/uploads"]}, ["shared", "media/uploads", "overlaps with media"]),
        ({"shared": ["media", "media"]}, ["shared", "overlaps with media"]),
        ({"shared": ["files"], "static": {"/s/": "files/static"}}, ["shared", "files", "overlaps with the static folder files/static"]),
        ({"shared": ["files/static/x"], "static": {"/s/": "files/static"}}, ["shared", "overlaps with the static folder files/static"]),
        ({"keep": 1}, ["keep", "1", "2 or more"]),
        ({"hook_seconds": 0}, ["hook_seconds", "0"]),
        ({"after_traffic": ["echo 'a"]}, ["after_traffic", "echo 'a"]),
        ({"switch": "restrat"}, ["switch", "restrat", "restart"]),
        ({"state": "gone"}, ["state", "gone", "absent"]),
        ({"data": "deleted"}, ["data", "deleted", "removed"]),
        ({"source": None}, ["source", "is missing. Every entry needs it."]),
        ({"app": None}, ["app", "is missing. Every entry needs it."]),
    ],
)
def test_a_mistake_in_the_life_of_releases_is_told(wrong, words):
    with pytest.raises(PorticoError) as told:
        normalise_apps([SHOP | wrong])
    for word in words:
        assert word in str(told.value)


def test_folders_whose_names_begin_alike_do_not_overlap():
    (app,) = normalise_apps([SHOP | {"shared": ["media", "media2"], "static": {"/s/": "media3"}}])
    assert app["shared"] == ["media", "media2"]
    assert (app["switch"], app["keep"], app["hook_seconds"], app["state"], app["data"]) == ("overlap", 5, 900, "present", "kept")


def test_an_app_that_is_to_be_absent_needs_its_name_alone():
    apps = normalise_apps([SHOP, {"name": "old", "state": "absent"}])
    assert [app["name"] for app in present(apps)] == ["shop"]
    check_folders(apps[1:], lambda path: path)
    with pytest.raises(PorticoError, match='"old"'):
        normalise_sites([{"name": "old", "server_names": ["old.example.com"], "app": "old"}], apps)


GIT = SHOP | {"source": {"git": "https://git.example.com/shop.git", "version": "v1", "token": "hunter2x"}}


@pytest.mark.parametrize(
    ("app", "given", "source"),
    [
        (GIT, {}, GIT["source"]),
        (GIT, {"version": "v2"}, {**GIT["source"], "version": "v2"}),
        (GIT, {"path": "/build/shop"}, {"path": "/build/shop"}),
        (GIT, {"path": "shop"}, {"path": os.path.abspath("shop")}),
        (GIT, {"archive": "/build/shop.tar.gz"}, {"archive": "/build/shop.tar.gz"}),
        (SHOP, {"path": "/build/shop"}, {"path": "/build/shop"}),
        (SHOP | {"source": {"package": "shop", "version": "1"}}, {"version": "1.10"}, {"package": "shop", "version": "1.10"}),
    ],
)
def test_one_app_is_deployed_at_a_version(app, given, source):
    wanted = {"version": None, "path": None, "archive": None} | given
    assert app_at([{"name": "blog"}, app], "shop", **wanted) == {**app, "source": source}


@pytest.mark.parametrize(
    ("apps", "name", "given", "words"),
    [
        ([GIT], "shpo", {}, ['no app "shpo"', 'Did you mean "shop"?']),
        ([], "shop", {}, ['no app "shop"', "There are none"]),
        ("shop", "shop", {}, ['no app "shop"']),
        ([SHOP], "shop", {"version": "v2"}, ["source", "has no versions", "v2", "path"]),
        ([GIT], "shop", {"version": "v2", "path": "x"}, ["a version and a path", "Keep one"]),
    ],
)
def test_an_app_that_cannot_be_deployed_so_is_told(apps, name, given, words):
    with pytest.raises(PorticoError) as told:
        app_at(apps, name, **({"version": None, "path": None, "archive": None} | given))
    assert "hunter2x" not in str(told.value)
    for word in words:
        assert word in str(told.value)


KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ==\n-----END OPENSSH PRIVATE KEY-----\n"
LOCKED = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHI=\n-----END OPENSSH PRIVATE KEY-----\n"
HOSTS = "git.example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHdoYXQgbm9ib2R5IGtub3dzIG9mIGl0"
OVER_SSH = {"git": "git@git.example.com:team/shop.git", "version": "v1"}
OVER_HTTPS = {"git": "https://git.example.com/shop.git", "version": "v1"}


@pytest.mark.parametrize(
    "right",
    [
        {"source": {**OVER_SSH, "key": KEY, "known_hosts": HOSTS}},
        {"source": {**OVER_SSH, "git": "ssh://git@git.example.com:2222/shop.git", "key": KEY.replace("\n", "\r\n")}},
        {"source": {**OVER_HTTPS, "token": "a-token-of-theirs"}},
        {"source": {**OVER_HTTPS, "git": "https://deploy-17@git.example.com/shop.git", "token": "a-token-of-theirs"}},
        {"source": {"archive": "dist/shop-1.0.tar.gz"}},
        {"source": {"archive": "dist/shop-1.0-py3-none-any.whl"}},
        {"source": {"package": "shop[postgres, redis]", "version": "1!4.2.1rc1.post2+local.1"}},
        {"requirements": "backend/uv.lock"},
        {"index": {"url": "https://pypi.example.com:8443/simple/", "user": "__token__", "password": "p@ss:w/ord"}},
        {"index": {"url": "http://pypi.example.com/simple"}},
    ],
)
def test_every_kind_of_source_is_taken(right):
    (app,) = normalise_apps([SHOP | right])
    assert app["source"]["key"] in (None, KEY)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"source": {"path": "a", "archive": "a.zip"}}, ["source.path and source.archive", "together"]),
        ({"source": {"package": "a", "git": "https://x.example/a.git", "version": "1"}}, ["source.git and source.package", "together"]),
        ({"source": {"archive": "a.rar"}}, ["source.archive", "a.rar", ".tar.xz"]),
        ({"source": {"archive": "shop.whl"}}, ["source.archive", "shop.whl", "named as wheels"]),
        ({"source": {"archive": "a.zip", "version": "1"}}, ["source.version", "no meaning for an archive"]),
        ({"source": {"package": "shop"}}, ["source.version", "is missing", "4.2.1"]),
        ({"source": {"package": "shop", "version": "latest"}}, ["source.version", "latest", "no exact version"]),
        ({"source": {"package": "shop", "version": ">=4"}}, ["source.version", ">=4"]),
        ({"source": {"package": "shop==4.2", "version": "4.2"}}, ["source.package", "shop==4.2", "source.version"]),
        ({"source": {"package": "--index-url=x", "version": "4.2"}}, ["source.package"]),
        ({"source": {"package": "shop", "version": "1.0"}, "requirements": "requirements.txt"}, ["requirements", "no meaning"]),
        ({"source": {"archive": "shop-1.0-py3-none-any.whl"}, "requirements": "requirements.txt"}, ["requirements", "no meaning"]),
        ({"source": {"git": "ext::sh -c x", "version": "v1"}}, ["source.git"]),
        ({"source": {**OVER_HTTPS, "key": KEY}}, ["source.key", "over SSH alone", "source.token"]),
        ({"source": {"path": "shop", "key": KEY}}, ["source.key", "over SSH alone"]),
        ({"source": {"path": "shop", "known_hosts": HOSTS}}, ["source.known_hosts", "over SSH alone"]),
        ({"source": {**OVER_SSH, "known_hosts": "yes"}}, ["source.known_hosts", "ssh-keyscan"]),
        ({"source": {**OVER_SSH, "token": "hunter2xx"}}, ["source.token", "https://", "source.key"]),
        ({"source": {**OVER_HTTPS, "git": "http://x.example/a.git", "token": "hunter2xx"}}, ["source.token", "http://"]),
        ({"source": {**OVER_HTTPS, "token": "hunter2xx and more"}}, ["source.token", "no spaces"]),
        ({"source": {**OVER_SSH, "key": "hunter2xx"}}, ["source.key", "-----BEGIN"]),
        ({"source": {**OVER_SSH, "key": KEY.replace("\n", " ")}}, ["source.key", "line ends"]),
        ({"source": {**OVER_SSH, "key": LOCKED}}, ["source.key", "passphrase"]),
        ({"source": {**OVER_HTTPS, "git": "https://me:hunter2xx@x.example/a.git"}}, ["source.git", "source.token"]),
        ({"source": {**OVER_HTTPS, "git": "https://:hunter2xx@x.example/a.git"}}, ["source.git", "source.token"]),
        ({"source": {**OVER_HTTPS, "git": " https://me:hunter2xx@x ample/a.git"}}, ["source.git", "source.token"]),
        ({"source": {**OVER_HTTPS, "git": "ssh://me:hunter2xx@x.example/a.git"}}, ["source.git", "source.token"]),
        ({"source": {**OVER_HTTPS, "git": "https://ghp_hunter2xx@x.example/a.git"}}, ["source.git", "source.token"]),
        ({"index": {"url": "https://me:hunter2xx@x.example/simple"}}, ["index.url", "index.password"]),
        ({"index": {"url": "ftp://x.example"}}, ["index.url", "ftp://x.example"]),
        ({"index": {"user": "me"}}, ["index.url", "is missing"]),
        ({"index": {"url": "https://x.example/simple", "password": "hunter2xx"}}, ["index.user", "__token__"]),
        ({"index": {"url": "http://x.example/simple", "user": "me", "password": "hunter2xx"}}, ["index.password", "https://"]),
        ({"index": {"url": "https://x.example/simple", "user": "a:b"}}, ["index.user"]),
        ({"installer": "poetry"}, ["installer", "poetry", "auto, pip, uv"]),
        ({"installer": "pip", "requirements": "uv.lock"}, ["installer", "does not understand uv.lock"]),
        ({"source": {**OVER_SSH, "kye": "hunter2xx"}}, ["source.kye", "key"]),
        ({"git": "https://me:hunter2xx@x.example/a.git"}, ['key "git"', "does not exist, with a password in it"]),
        ({"enviroment": {"DATABASE_URL": "postgres://u:hunter2xx@h/db"}}, ["enviroment", 'Did you mean "environment"?']),
        ({"before_traffic": ["curl https://u:hunter2xx@ops.example/hook"]}, ["before_traffic", "environment or credentials"]),
        ({"companions": [{"name": "q", "command": "celery -b redis://:hunter2xx@localhost/0 worker"}]}, ["companions", "environment or credentials"]),
        ({"source": {**OVER_HTTPS, "git": "https://hunter2xx0123456789abcdef0123456@x.example/a.git"}}, ["source.git", "source.token"]),
        ({"source": {**OVER_HTTPS, "git": "https://x.example/a.git?private_token=hunter2xx"}}, ["source.git", "source.token"]),
        ({"source": {**OVER_SSH, "git": "me:hunter2xx@x.example:a.git"}}, ["source.git", "source.token"]),
        ({"index": {"url": "https://x.example/simple/?token=hunter2xx"}}, ["index.url", "index.password"]),
    ],
)
def test_a_mistake_in_a_source_is_told_and_shows_no_secret(wrong, words):
    with pytest.raises(PorticoError) as told:
        normalise_apps([SHOP | wrong])
    for word in words:
        assert word in str(told.value)
    assert "hunter2xx" not in str(told.value) and "b3BlbnNza" not in str(told.value)


@pytest.mark.parametrize(
    "right",
    [
        {"health": {"contains": "mailto:help@shop.example"}},
        {"health": {"contains": "https://shop.example.com/?ref=home"}},
        {"source": {**OVER_SSH, "git": "ssh://deployment-robot-at-123456789012@git.example.com/v1/shop.git"}},
        {"before_traffic": ["curl https://ops.example/hook?release=1"]},
        {"environment": {"GUNICORN_CMD_ARGS": "--access-logfile -"}},
    ],
)
def test_what_only_looks_like_a_password_is_taken(right):
    assert normalise_apps([SHOP | right])


def archived(folder, to):
    with tarfile.open(to, "w:gz") as tar:
        tar.add(folder, arcname="shop-1.0")
    return to


def test_an_archive_is_looked_into_before_the_host_is_asked(folder, tmp_path):
    def check(name, **more):
        check_folders(normalise_apps([SHOP | {"source": {"archive": name}} | more]), lambda path: str(tmp_path / path))

    archived(folder, tmp_path / "shop.tgz")
    check("shop.tgz")
    with pytest.raises(PorticoError, match=r"source.archive.*other.tgz.*is not a file on the controller"):
        check("other.tgz")
    with pytest.raises(PorticoError, match=r'requirements.*"base.txt" is not in shop.tgz.*requirements.txt'):
        check("shop.tgz", requirements="base.txt")
    (folder / "out").symlink_to("/etc")
    archived(folder, tmp_path / "shop.tgz")
    with pytest.raises(PorticoError, match=r"source.archive.*leads outside"):
        check("shop.tgz")
    (tmp_path / "no.zip").write_text("no archive")
    with pytest.raises(PorticoError, match=r"source.archive.*no.zip.*cannot be read"):
        check("no.zip")


def test_a_source_is_known_by_its_content(folder, tmp_path):
    archived(folder, tmp_path / "shop.tgz")
    known = {
        fingerprint(app["source"], lambda path: str(tmp_path / path))
        for app in normalise_apps([SHOP | {"name": name, "source": source} for name, source in {
            "a": {"path": "shop"}, "b": {"archive": "shop.tgz"}, "c": {"package": "shop", "version": "1.0"}, "d": {"package": "shop", "version": "1.1"},
        }.items()])
    }
    assert len(known) == 4


def test_what_opens_things_goes_apart_from_what_the_host_is_told():
    (app,) = normalise_apps([SHOP | {"source": {**OVER_HTTPS, "token": "hunter2xx"}, "index": {"url": "https://x.example/simple", "user": "me", "password": "hunter3xx"}}])
    assert secrets(app, "key", "token", "password") == {"token": "hunter2xx", "password": "hunter3xx"}
    assert secrets(app, "key", "token") == {"token": "hunter2xx"}
    assert public_index(app) == {"url": "https://x.example/simple", "user": "me"}
    with_another_password = {**app, "index": {**app["index"], "user": "you", "password": "another"}}
    assert release_id(app, "digest", "3.13.5") == release_id(with_another_password, "digest", "3.13.5")
    assert release_id(app, "digest", "3.13.5") != release_id({**app, "index": None}, "digest", "3.13.5")
