"""When companions run: with the release that visitors meet, and never in both slots."""

from __future__ import annotations

import os
import pwd
import re

import pytest

from ansible_collections.portico.web.plugins.module_utils import files, health, layout, slots
from ansible_collections.portico.web.plugins.module_utils.environments import COMPLETE
from ansible_collections.portico.web.plugins.module_utils.releases import Releases
from ansible_collections.portico.web.plugins.module_utils.steps import StepError, Steps
from ansible_collections.portico.web.plugins.modules.gunicorn_release import App
from ansible_collections.portico.web.plugins.plugin_utils.apps import host_files, normalise_apps

BEAT = {"name": "beat", "command": "celery beat"}
WORKER = {"name": "worker", "command": "celery worker"}


class Systemd:
    """What systemd would do, and whether a companion ever ran, or would at a boot, in both slots."""

    def __init__(self, home):
        self.home = home
        self.active, self.enabled, self.dies, self.refuses, self.log = set(), set(), set(), set(), []

    def run(self, command, **_how):
        if command[0] == "timeout":
            command = command[2:]
        if command[0] != "systemctl":
            return 0, "", ""
        verb, units = command[1], [each for each in command[2:] if each.startswith("portico-")]
        if verb in ("is-active", "is-enabled", "is-failed"):
            return 0 if set(units) <= {"is-active": self.active, "is-enabled": self.enabled, "is-failed": set()}[verb] else 3, "", ""
        if verb == "show":
            blocks = [f"ActiveState={'active' if each in self.active else 'inactive'}\nUnitFileState={'enabled' if each in self.enabled else 'disabled'}" for each in units]
            return 0, "\n\n".join(blocks) if "ActiveState,UnitFileState" in command else "InvocationID=1\nExecMainPID=1", ""
        for each in units:
            self._one(verb, each)
            self.log.append(f"{verb} {each}")
            for running in (self.active, self.enabled):
                assert not {f"portico-shop-beat@{slot}.service" for slot in "ab"} <= running, self.log
        return int(verb == "start" and bool(self.refuses & set(units))), "", ""

    def _one(self, verb, unit):
        if verb == "start" and unit not in self.refuses:
            self.active.add(unit)
            self.active -= self.dies
        elif verb == "stop":
            self.active.discard(unit)
        elif verb == "enable":
            self.enabled.add(unit)
        elif verb == "disable":
            self.enabled.discard(unit)

    def companions(self, of=None):
        return sorted(each for each in (self.active if of is None else of) if re.match("portico-shop-", each))


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    for name in ("APPS", "APP_SETTINGS", "SOCKETS", "UNITS", "STATE"):
        monkeypatch.setattr(layout, name, str(tmp_path / name))
        (tmp_path / name).mkdir()
    found = Systemd(f"{tmp_path}/APPS/shop")
    monkeypatch.setattr(Steps, "run", lambda _self, command, **how: found.run(command, **how))
    monkeypatch.setattr(slots, "SECONDS_TO_DRAIN", 0)
    monkeypatch.setattr(slots, "SECONDS_TO_SETTLE", 0)
    monkeypatch.setattr(health, "wait", lambda *_all: None)
    monkeypatch.setattr(App, "_make_user", lambda _self: None)
    monkeypatch.setattr(pwd, "getpwnam", lambda _name: pwd.getpwuid(os.getuid()))

    def make(self, release, _slot):
        os.makedirs(self.path(release), exist_ok=True)
        files.write(f"{self.path(release)}/{COMPLETE}", "{}")

    monkeypatch.setattr(Releases, "make", make)
    return found


def app_of(release, *companions, **keys):
    (app,) = normalise_apps([{"name": "shop", "source": {"path": "shop"}, "app": "a:b", "companions": list(companions), **keys}])
    order = {key: app[key] for key in ("name", "python", "worker_class", "network", "health", "switch", "keep", "max_requests")}
    units = [layout.companion_unit("shop", each["name"]) for each in companions]
    return App(None, {**order, "release": release, "owes_only": False, "companions": units, "files": host_files(app, "www-data")})


def deploy(app, credentials="{}"):
    app.deploy("", credentials)
    return app


def test_a_new_releases_companions_start_when_the_old_ones_have_ended(systemd):
    deploy(app_of("one", BEAT, WORKER))
    assert systemd.companions() == systemd.companions(systemd.enabled) == ["portico-shop-beat@a.service", "portico-shop-worker@a.service"]
    systemd.log.clear()
    app = deploy(app_of("two", BEAT, WORKER))
    assert systemd.companions() == systemd.companions(systemd.enabled) == ["portico-shop-beat@b.service", "portico-shop-worker@b.service"]
    begin, end, well = (systemd.log.index(each) for each in ("start portico-shop-beat@b.service", "stop portico-shop-worker@a.service", "start portico-shop@b.service"))
    assert well < end < begin < systemd.log.index("enable portico-shop@b.service")
    assert app.slots.live() == "b" and app.slots.runs("b")


@pytest.mark.parametrize("how", ["dies", "refuses"])
def test_a_companion_that_does_not_start_takes_the_deploy_back(systemd, how):
    app = deploy(app_of("one", BEAT))
    texts = {path: files.read(path) for path in app.slots.unit_files("a")}
    getattr(systemd, how).add("portico-shop-worker@b.service")
    with pytest.raises(StepError, match=r"starting the companion portico-shop-worker@b\.service; what served before goes on serving"):
        deploy(app_of("two", {**BEAT, "command": "celery beat --new"}, WORKER))
    assert systemd.companions() == systemd.companions(systemd.enabled) == ["portico-shop-beat@a.service"]
    assert app.slots.live() == "a" and app.slots.runs("a")
    assert {path: files.read(path) for path in app.slots.unit_files("a")} == texts and app.slots.companions("b") == []
    deploy(app_of("three", BEAT))
    assert systemd.companions() == ["portico-shop-beat@b.service"]


def test_companions_that_do_not_come_back_are_told(systemd):
    deploy(app_of("one", BEAT))
    systemd.refuses |= {"portico-shop-beat@a.service", "portico-shop-beat@b.service"}
    with pytest.raises(StepError, match=r"(?s)starting the companion portico-shop-beat@b.*did not start again: portico-shop-beat@a"):
        deploy(app_of("two", BEAT))


def test_a_release_keeps_the_settings_that_it_is_live_with_when_others_fail(systemd):
    app = deploy(app_of("one", BEAT))
    known = app.releases.settings("one")
    systemd.refuses.add("portico-shop-worker@b.service")
    with pytest.raises(StepError, match="starting the companion"):
        deploy(app_of("one", BEAT, WORKER))
    assert app.releases.settings("one") == known


def test_companions_that_a_killed_run_has_stopped_start_again_when_the_next_fails(systemd, monkeypatch):
    app = deploy(app_of("one", BEAT))
    app.slots.stop_companions("a")
    monkeypatch.setattr(health, "wait", lambda *_all: "it hangs")
    with pytest.raises(StepError, match="its health check"):
        deploy(app_of("two", BEAT))
    assert systemd.companions() == ["portico-shop-beat@a.service"]


def test_a_release_that_is_not_well_leaves_the_companions_alone(systemd, monkeypatch):
    deploy(app_of("one", BEAT))
    monkeypatch.setattr(health, "wait", lambda *_all: "it hangs")
    systemd.log.clear()
    with pytest.raises(StepError, match="its health check"):
        deploy(app_of("two", BEAT))
    assert not [each for each in systemd.log if each.startswith(("stop portico-shop-beat@a", "disable portico-shop-beat@a"))]


def test_a_companion_that_is_no_longer_listed_goes_with_its_unit(systemd):
    deploy(app_of("one", BEAT, WORKER))
    app = deploy(app_of("two", BEAT))
    assert systemd.companions() == systemd.companions(systemd.enabled) == ["portico-shop-beat@b.service"]
    assert app.slots.companions("a") == [] and app.slots.companions("b") == ["portico-shop-beat@b.service"]
    deploy(app_of("three"))
    assert systemd.companions() == systemd.companions(systemd.enabled) == app.slots.companions("a") == []
    assert app.slots.runs("a")


def test_a_companion_that_does_not_run_is_seen(systemd):
    app = deploy(app_of("one", BEAT))
    assert app.slots.runs("a")
    systemd.active.discard("portico-shop-beat@a.service")
    assert not app.slots.runs("a")


def test_units_of_another_app_are_neither_taken_nor_removed(systemd):
    web = f"{layout.UNITS}/portico-shop-web@b.service"
    files.write(web, "[Service]\n")
    app = deploy(app_of("one", BEAT))
    with pytest.raises(StepError, match=r"(?s)writing its units; what served before.*portico-shop-web@b\.service is there, and is not of this app"):
        deploy(app_of("two", {"name": "web", "command": "a"}))
    assert files.read(web) == "[Service]\n" and app.slots.runs("a")
    files.write(f"{layout.UNITS}/portico-shop@b.service", layout.companion_marker("sh") + "[Service]\n")
    with pytest.raises(StepError, match="is not of this app"):
        deploy(app_of("two"))


def test_credentials_are_files_that_only_root_reads(systemd, tmp_path):
    app = deploy(app_of("one"), '{"a": "x\\r\\n", "b": ""}')
    folder = tmp_path / "APP_SETTINGS" / "shop" / "a.credentials"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {(each.name, each.read_bytes(), each.stat().st_mode & 0o777) for each in folder.iterdir()} == {("a", b"x\r\n", 0o600), ("b", b"", 0o600)}
    assert app._credentials("a") == '{"a": "x\\r\\n", "b": ""}'
    deploy(app_of("one"))
    deploy(app_of("one"))
    assert not folder.exists() and app._credentials("a") == "{}"


@pytest.mark.parametrize(("worker_class", "package"), [("uvicorn", "uvicorn-worker"), ("asgi", "gunicorn 24")])
def test_a_worker_class_that_is_not_there_is_told(systemd, worker_class, package):
    with pytest.raises(StepError, match=rf"(?s)finding its worker class; nothing serves it yet.*worker_class is {worker_class}.*no {package}"):
        deploy(app_of("one", worker_class=worker_class))
