"""Environments: made once for the same, whole or not at all, by an installer that nobody here wrote (a stand-in for it)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import app_on_host
import pytest

from ansible_collections.portico.web.plugins.module_utils import builder, commands, installers, layout
from ansible_collections.portico.web.plugins.module_utils.environments import Environments
from ansible_collections.portico.web.plugins.module_utils.installers import as_uv, find_uv, index_url, pip_settings
from ansible_collections.portico.web.plugins.module_utils.steps import StepError

# Python, pip and uv in one: they note what they are told, and leave what the real ones would leave.
STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >>"$NOTES"
env | grep -E '^(PIP|UV|SSL|HOME|TMPDIR)' | sort >>"$NOTES.env"
new() { mkdir -p "$1/bin" && cp "$0" "$1/bin/python" && printf 'version = %s\\n' "$(cat "$NOTES.version")" >"$1/pyvenv.cfg"; }
case "$*" in
  "-c import platform"*) cat "$NOTES.version" ;;
  "-c import ensurepip"*) test ! -e "$NOTES.novenv" ;;
  "-m venv "*) new "$3" ;;
  "venv "*) for folder; do :; done; new "$folder" ;;
  *) if test -e "$NOTES.fails"; then echo "no package fits: $(pwd)"; echo "by a lot" >&2; exit 1; fi
     case "$*" in *uv==*) touch "$(dirname "$0")/uv" ;; *gunicorn==*) touch "$(dirname "$(dirname "$NOTES")")/gunicorn-installed" ;; esac
     ls -A . >"$NOTES.here" ;;
esac
"""


class Host:
    """A host with the stand-in as its Python and, if told so, as its uv."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes, self.source = folder, folder / "notes", folder / "source"
        self.python = folder / "bin" / "python3"
        self.python.parent.mkdir()
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)
        self.source.mkdir()
        self.version("3.13.5")

    def version(self, version: str) -> None:
        Path(f"{self.notes}.version").write_text(f"{version}\n")

    def with_uv(self) -> str:
        uv = self.folder / "bin" / "uv"
        uv.write_text(STAND_IN)
        uv.chmod(0o755)
        return str(uv)

    def environments(self, **order):
        steps, self.module = app_on_host.steps()
        defaults = {"requirements": None, "gunicorn": "gunicorn==27.0.1", "installer": "pip", "index": None, "package": None, "version": None, "wheel": None, "archive": None, "fingerprint": "f"}
        return Environments({"name": "shop", "python": str(self.python), **defaults, **order}, steps)

    def make(self, **order) -> str:
        self.notes.unlink(missing_ok=True)
        return self.environments(**order).make(str(self.source))

    def noted(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def installed(self) -> list[str]:
        return [line for line in self.noted() if "pip install" in line or " sync " in line]

    def made(self) -> list[str]:
        return sorted(os.listdir(self.folder / "srv" / "shop" / "environments"))


@pytest.fixture
def host(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_", "SSL_")):
            monkeypatch.delenv(name)
    (tmp_path / "srv" / "shop" / "environments").mkdir(parents=True)
    (tmp_path / "private").mkdir()
    monkeypatch.setattr(layout, "APPS", str(tmp_path / "srv"))
    monkeypatch.setattr(layout, "UV", str(tmp_path / "opt" / "uv"))
    monkeypatch.setattr(builder, "_PRIVATE", str(tmp_path / "private"))
    monkeypatch.setattr(installers, "PIP_SETTINGS", (str(tmp_path / "pip.conf"),))
    monkeypatch.setattr(commands, "find", lambda name: str(tmp_path / "bin" / name) if (tmp_path / "bin" / name).exists() else None)
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    return Host(tmp_path)


def test_the_same_is_made_once(host):
    (host.source / "requirements.txt").write_text("Django==5.2\n-r more.txt\n")
    (host.source / "more.txt").write_text("a==1\n")
    first = host.make()
    assert host.installed()[0].endswith(f"--requirement {host.source}/requirements.txt")
    assert host.installed()[1].endswith(" gunicorn==27.0.1")
    (host.source / "wsgi.py").write_text("other")
    assert host.make(fingerprint="another") == first
    assert host.installed() == []
    (host.source / "more.txt").write_text("a==2\n")
    assert host.make() != first
    assert len(host.made()) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"requirements": "other.txt"},
        {"gunicorn": "gunicorn==26.0.0"},
        {"index": {"url": "https://x.example/simple", "user": None}},
        {"package": "shop", "version": "1.0"},
    ],
)
def test_something_else_is_another_environment(host, change):
    for name in ("requirements.txt", "other.txt"):
        (host.source / name).write_text(f"{name}==1\n")
    assert host.make() != host.make(**change)


def test_who_asks_an_index_and_how_makes_no_other_environment(host):
    (host.source / "requirements.txt").write_text("a\n")
    index = {"url": "https://x.example/simple", "user": "me"}
    assert host.make(index=index, secrets={"password": "one"}) == host.make(index={**index, "user": "you"}, secrets={"password": "two"})


def test_an_upgraded_python_is_a_new_environment_and_the_old_one_stays(host):
    (host.source / "requirements.txt").write_text("a\n")
    old = host.make()
    host.version("3.13.6")
    assert not host.environments().works(old)
    assert host.make() != old
    assert os.path.isdir(old)


def test_a_python_that_vanished_is_repaired_beside_what_may_still_run(host, tmp_path):
    (host.source / "requirements.txt").write_text("a\n")
    old = host.make()
    release = tmp_path / "srv" / "shop" / "releases" / "r"
    release.mkdir(parents=True)
    (release / "source").symlink_to(host.source)
    (release / "environment").symlink_to(os.path.relpath(old, release))
    host.environments().repair(str(release))
    assert host.made() == [os.path.basename(old)]
    os.remove(f"{old}/bin/python")
    os.symlink("/usr/bin/python-that-is-gone", f"{old}/bin/python")
    host.environments().repair(str(release))
    assert host.made() == [os.path.basename(old), f"{os.path.basename(old)}-1"]
    assert os.path.realpath(release / "environment") == os.path.realpath(f"{old}-1")
    assert host.environments().works(f"{release}/environment")


def test_an_environment_that_is_half_made_is_begun_anew(host):
    (host.source / "requirements.txt").write_text("a\n")
    folder = host.make()
    os.remove(f"{folder}/complete.json")
    (Path(folder) / "left").write_text("x")
    assert host.make() == folder
    assert not os.path.exists(f"{folder}/left") and host.installed()


def test_a_failure_names_its_step_with_the_last_words_and_leaves_nothing(host, tmp_path):
    (host.source / "requirements.txt").write_text("a\n")
    Path(f"{host.notes}.fails").write_text("")
    with pytest.raises(StepError) as told:
        host.make()
    assert "failed at installing its requirements" in str(told.value)
    assert "no package fits" in str(told.value) and "by a lot" in str(told.value)
    assert host.made() == [] and os.listdir(tmp_path / "private") == []


def test_a_build_that_takes_too_long_says_so(host, monkeypatch):
    (host.source / "requirements.txt").write_text("a\n")
    Path(f"{host.notes}.fails").write_text("")
    monkeypatch.setattr(builder, "SECONDS", 0)
    with pytest.raises(StepError, match="It took longer than 0 seconds"):
        host.make()


def test_a_disk_that_is_full_is_a_failed_step(host, monkeypatch):
    (host.source / "requirements.txt").write_text("a\n")

    def full(*_given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(installers.Pip, "make", full)
    with pytest.raises(StepError, match=r"making its environment(.|\n)*No space left"):
        host.make()
    assert host.made() == []


def test_builds_run_as_the_apps_user_and_see_no_secret_on_a_command_line(host, monkeypatch, tmp_path):
    (host.source / "requirements.txt").write_text("a\n")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://extra.example/simple")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/company.pem")
    monkeypatch.setenv("UNRELATED_SECRET", "hunter2xx")
    folder = host.make(index={"url": "https://x.example/simple", "user": "me@x"}, secrets={"password": 'p@ss"$w/rd\\'})
    noted = Path(f"{host.notes}.env").read_text()
    assert "PIP_INDEX_URL=https://me%40x:p%40ss%22%24w%2Frd%5C@x.example/simple" in noted
    assert "SSL_CERT_FILE=/etc/ssl/company.pem" in noted
    builds = [line for line in host.module.lines() if line.startswith("systemd-run")]
    assert builds and all("--property=User=portico-shop" in line and f"ReadWritePaths={folder} " in line and "RuntimeMaxSec=" in line for line in builds)
    assert not [line for line in host.module.lines() if "ss%22" in line or 'p@ss"' in line]
    assert not [each for each in Path(folder).rglob("*") if each.is_file() and "p%40ss" in each.read_text()]
    assert os.listdir(tmp_path / "private") == []
    assert not [variables for variables in host.module.given if variables.get("UNRELATED_SECRET") and "PIP_INDEX_URL" in variables]


@pytest.mark.parametrize(
    ("installer", "empty", "told"),
    [
        ("pip", ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"), {"PIP_CONFIG_FILE": "/dev/null", "PIP_INDEX_URL": "https://x.example/simple", "PIP_CERT": "/etc/ssl/company.pem"}),
        ("uv", ("UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"), {"UV_DEFAULT_INDEX": "https://x.example/simple", "UV_INDEX_STRATEGY": "first-index", "UV_NO_SYSTEM_CONFIG": "1"}),
    ],
)
def test_a_private_index_is_asked_alone(host, monkeypatch, tmp_path, installer, empty, told):
    (host.source / "requirements.txt").write_text("a\n")
    (tmp_path / "pip.conf").write_text("[global]\nextra-index-url = https://extra.example/simple\nfind-links = /srv/wheels\ncert = /etc/ssl/company.pem\n")
    monkeypatch.setattr(installers, "PIP_SETTINGS", (str(tmp_path / "pip.conf"),))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://extra.example/simple")
    monkeypatch.setenv("UV_INDEX", "https://extra.example/simple")
    if installer == "uv":
        host.with_uv()
    host.make(index={"url": "https://x.example/simple"}, installer=installer)
    builds = [variables for variables in host.module.given if "UV_DEFAULT_INDEX" in variables or "PIP_INDEX_URL" in variables]
    assert builds
    for variables in builds:
        assert {name: variables[name] for name in told} == told
        assert {variables[name] for name in empty} == {""}


def test_hashes_are_asked_of_all_or_none(host):
    (host.source / "requirements.txt").write_text("a==1 --hash=sha256:00\n")
    host.make()
    assert "--require-hashes" in host.installed()[0] and "--require-hashes" not in host.installed()[1]
    (host.source / "requirements.txt").write_text("a==1\n")
    host.make()
    assert "--require-hashes" not in host.installed()[0]


def test_a_project_is_installed_from_a_copy_that_is_gone_afterwards(host):
    (host.source / "pyproject.toml").write_text("[project]\n")
    (host.source / "shop.py").write_text("x")
    folder = host.make(fingerprint="one")
    assert host.installed()[0].endswith(f" {folder}/.source")
    assert not os.path.exists(f"{folder}/.source")
    assert sorted(os.listdir(host.source)) == ["pyproject.toml", "shop.py"]
    assert host.make(fingerprint="two") != folder


def test_a_package_is_installed_at_its_version(host):
    host.make(package="shop[x]", version="1.0")
    assert host.installed()[0].endswith(" shop[x]==1.0")


def test_a_wheel_is_installed_under_its_own_name(host, tmp_path):
    (tmp_path / "sent.whl").write_text("wheel")
    host.make(wheel="shop-1.0-py3-none-any.whl", archive=str(tmp_path / "sent.whl"))
    assert host.installed()[0].endswith("/.source/shop-1.0-py3-none-any.whl")


def test_uv_is_taken_where_it_is_and_pip_where_it_is_not(host):
    (host.source / "requirements.txt").write_text("a\n")
    uv = host.with_uv()
    folder = host.make(installer="auto")
    assert [line.split()[0] for line in host.installed()] == ["uv", "uv"]
    assert json.loads(Path(f"{folder}/complete.json").read_text())["installer"] == "uv"
    os.remove(uv)
    (host.source / "requirements.txt").write_text("b\n")
    host.environments(installer="auto")
    assert installers.Pip.__name__.lower() in json.loads(Path(f"{host.make(installer='pip')}/complete.json").read_text())["installer"]


def test_a_lock_file_is_synced_frozen(host):
    host.with_uv()
    (host.source / "uv.lock").write_text('source = { virtual = "." }\n')
    (host.source / "pyproject.toml").write_text("[project]\n")
    folder = host.make(installer="auto")
    assert f"uv sync --quiet --frozen --no-dev --no-editable --python {host.python} --project {host.source}" in host.installed()
    noted = Path(f"{host.notes}.env").read_text()
    assert f"UV_PROJECT_ENVIRONMENT={folder}\n" in noted and "UV_PYTHON_DOWNLOADS=never\n" in noted and "UV_COMPILE_BYTECODE=1\n" in noted


def test_a_lock_file_is_not_for_pip(host):
    (host.source / "uv.lock").write_text("")
    (host.source / "pyproject.toml").write_text("[project]\n")
    with pytest.raises(StepError, match="only uv understands uv.lock"):
        host.make(installer="pip")
    assert host.made() == []


def test_a_python_without_venv_says_what_to_install(host):
    (host.source / "requirements.txt").write_text("a\n")
    Path(f"{host.notes}.novenv").write_text("")
    with pytest.raises(StepError, match="python3.13-venv"):
        host.make()


def test_a_uv_of_porticos_own_is_fetched_once(host, monkeypatch):
    monkeypatch.setattr(installers, "SYSTEM_PYTHON", str(host.python))
    steps, module = app_on_host.steps()
    program, why = find_uv(steps)
    assert program == f"{layout.UV}/{installers.UV_VERSION}/uv", why
    assert os.access(program, os.X_OK)
    assert any(f"--only-binary :all: --no-deps --no-compile uv=={installers.UV_VERSION}" in line for line in module.lines())
    assert os.listdir(layout.UV) == [installers.UV_VERSION]
    ran = len(module.ran)
    assert find_uv(steps) == (program, "") and len(module.ran) == ran


def test_a_uv_that_cannot_be_had_is_told_where_it_is_needed(host, monkeypatch):
    monkeypatch.setattr(installers, "SYSTEM_PYTHON", str(host.python))
    Path(f"{host.notes}.fails").write_text("")
    (host.source / "requirements.txt").write_text("a\n")
    with pytest.raises(StepError, match=r"failed at getting uv(.|\n)*no package fits"):
        host.make(installer="uv")
    assert os.listdir(layout.UV) == []
    with pytest.raises(StepError, match="failed at installing its requirements"):
        host.make(installer="auto")


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("", {}, {}),
        ("[global]\nindex-url = https://a.example/simple\ncert = /ca.pem\n", {}, {"UV_DEFAULT_INDEX": "https://a.example/simple", "SSL_CERT_FILE": "/ca.pem"}),
        ("[global]\nindex-url = https://a.example/simple\n", {"PIP_INDEX_URL": "https://b.example/simple"}, {"UV_DEFAULT_INDEX": "https://b.example/simple"}),
        ("[install]\nextra_index_url = https://a.example/x\n  https://b.example/y\n", {}, {"UV_INDEX": "https://a.example/x https://b.example/y", "UV_INDEX_STRATEGY": "unsafe-best-match"}),
        ("[global]\ntrusted-host = a.example\nfind-links = /srv/wheels https://w.example/\nno-index = true\n", {}, {"UV_INSECURE_HOST": "a.example", "UV_FIND_LINKS": "/srv/wheels,https://w.example/", "UV_NO_INDEX": "1"}),
        ("[global]\nproxy = http://p.example:3128\n", {}, {"HTTPS_PROXY": "http://p.example:3128", "HTTP_PROXY": "http://p.example:3128"}),
        ("[global]\nindex-url = https://a.example/simple\ncert = /ca.pem\n", {"UV_DEFAULT_INDEX": "https://u.example"}, {"SSL_CERT_FILE": "/ca.pem"}),
        ("[global]\ncert = /ca.pem\n", {"SSL_CERT_FILE": "/other.pem"}, {}),
        ("no settings at all", {}, {}),
        ("[global]\nindex-url = https://a.example/%7Ex\n", {}, {"UV_DEFAULT_INDEX": "https://a.example/%7Ex"}),
    ],
)
def test_what_the_host_tells_pip_holds_for_uv(tmp_path, monkeypatch, text, environment, expected):
    (tmp_path / "pip.conf").write_text(text)
    monkeypatch.setattr(installers, "PIP_SETTINGS", (str(tmp_path / "pip.conf"),))
    assert as_uv(pip_settings(environment), environment) == expected


@pytest.mark.parametrize(
    ("index", "password", "url"),
    [
        (None, None, None),
        ({"url": "https://x.example/simple/", "user": None}, None, "https://x.example/simple/"),
        ({"url": "https://x.example:8443/simple/", "user": "me"}, "a:b@c/d%", "https://me:a%3Ab%40c%2Fd%25@x.example:8443/simple/"),
    ],
)
def test_an_index_is_opened_byte_for_byte(index, password, url):
    assert index_url(index, password) == url
