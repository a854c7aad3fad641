"""The playbooks that a person or a job in CI runs for one app, as far as the controller goes, and what the job is told."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml

from ansible_collections.portico.web.plugins.action import gunicorn_deploy, gunicorn_rollback
from ansible_collections.portico.web.plugins.filter.app_at import app_at
from ansible_collections.portico.web.plugins.module_utils.files import digest
from ansible_collections.portico.web.plugins.plugin_utils import apps, controller
from ansible_collections.portico.web.plugins.plugin_utils.entries import PorticoError
from ansible_collections.portico.web.plugins.plugin_utils.report import report

PLAYBOOKS = Path(__file__).parents[2] / "playbooks"
# Nothing listens there. Whoever touches the host learns that it is unreachable.
HOST = {"ansible_host": "127.0.0.1", "ansible_port": 1}
APP = {"name": "shop", "source": {"git": "https://git.example.com/shop.git", "version": "v1"}, "app": "shop:app"}


@pytest.fixture
def play(tmp_path):
    inventory = {"all": {"hosts": {"one": HOST, "two": HOST}, "vars": {"gunicorn_apps": [APP]}}}
    (tmp_path / "inventory.yml").write_text(yaml.safe_dump(inventory))

    def run(playbook: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [Path(sys.executable).with_name("ansible-playbook"), "-i", "inventory.yml", PLAYBOOKS / playbook]
        given = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
        return subprocess.run([*command, *given], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)

    return run


def test_a_job_learns_of_an_app_that_is_not_in_the_list(play, tmp_path):
    run = play("deploy.yml", app="shpo", version="v2", result="result.json")
    assert run.returncode != 0 and "UNREACHABLE" not in run.stdout, run.stdout
    told = json.loads((tmp_path / "result.json").read_text())
    assert (told["app"], told["changed"], told["failed"]) == ("shpo", False, True)
    assert [host["host"] for host in told["hosts"]] == ["one", "two"]
    for host in told["hosts"]:
        assert 'gunicorn_apps has no app "shpo". Did you mean "shop"?' in host["error"]


def test_without_a_file_the_report_is_a_line_of_its_own(play):
    run = play("deploy.yml", app="shop", version="v2", path="/build")
    (line,) = [line for line in run.stdout.splitlines() if line.startswith("{")]
    assert "is given a version and a path" in json.loads(line)["hosts"][0]["error"]
    assert run.returncode != 0


def test_a_version_is_checked_before_the_host_is_touched(play, tmp_path):
    run = play("deploy.yml", app="shop", version="", result="result.json")
    assert run.returncode != 0 and "UNREACHABLE" not in run.stdout, run.stdout
    (error,) = {host["error"] for host in json.loads((tmp_path / "result.json").read_text())["hosts"]}
    assert 'gunicorn_apps, entry "shop", key "source.version": "" is not a branch, tag, commit or version.' in error


def test_a_host_that_is_not_reached_is_reported_and_fails(play, tmp_path):
    run = play("deploy.yml", app="shop", result="result.json")
    assert run.returncode != 0, run.stdout
    told = json.loads((tmp_path / "result.json").read_text())
    assert told["failed"] and {host["error"] for host in told["hosts"]} == {"the host was not reached"}


def test_an_app_that_is_to_be_absent_is_not_deployed_and_not_removed(tmp_path):
    for given in ({"version": "v2"}, {"path": "/build"}, {}):
        with pytest.raises(PorticoError, match='key "state": "absent" takes the app away, and it was to be deployed'):
            apps.app_at([{**APP, "state": "absent", "data": "removed"}], "shop", given.get("version"), given.get("path"), None)


def test_a_version_that_is_a_number_is_refused():
    """1.10 would be the tag 1.1."""
    with pytest.raises(PorticoError, match="is a number, not text. Write it in quotes"):
        apps.normalise_apps(app_at([APP], "shop", 1.10))


def test_a_job_that_names_hosts_which_are_not_there_fails(play, tmp_path):
    run = play("deploy.yml", app="shop", version="v2", portico_hosts="wbe", result="result.json")
    assert run.returncode != 0 and 'No host of the inventory fits "wbe"' in run.stdout, run.stdout


@pytest.mark.parametrize("kind", ["socket", "pipe", "nobody's folder"])
def test_a_source_that_cannot_be_read_is_named(tmp_path, monkeypatch, kind):
    (tmp_path / "a.py").write_text("")
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "odd"))
    elif kind == "pipe":
        os.mkfifo(tmp_path / "odd")
    else:
        (tmp_path / "odd").mkdir()

        def walk(folder, onerror):
            onerror(PermissionError(13, "Permission denied", f"{folder}/odd"))
            return iter(())

        monkeypatch.setattr(os, "walk", walk)
    app = {"name": "shop", "source": {"path": str(tmp_path)}}
    with pytest.raises(PorticoError, match=r'entry "shop", key "source.path": .* cannot be read: .*/odd: '):
        gunicorn_deploy.ActionModule._read(app, lambda: apps.folder_digest(str(tmp_path)))


def test_who_names_no_app_is_asked_for_one(play):
    run = play("deploy.yml")
    assert run.returncode != 0 and "Say which app to deploy" in run.stdout, run.stdout


def test_the_report_says_what_is_live_on_each_host():
    live = {"shop": {"release": "r2", "revision": "abc", "previous": "r1", "bytes": 7, "releases": []}}
    done = {"changed": True, "apps": [{"name": "shop"}], "live": live, "seconds": 4.2}
    told = report("shop", {"one": done, "two": {**done, "changed": False}, "three": {"failed": True, "msg": "no"}, "four": None})
    assert told == {
        "app": "shop",
        "changed": True,
        "failed": True,
        "hosts": [
            {"host": "one", "failed": False, "changed": True, "release": "r2", "revision": "abc", "previous": "r1", "seconds": 4.2},
            {"host": "two", "failed": False, "changed": False, "release": "r2", "revision": "abc", "previous": "r1", "seconds": 4.2},
            {"host": "three", "failed": True, "changed": False, "error": "no"},
            {"host": "four", "failed": True, "changed": False, "error": "the host was not reached"},
        ],
    }


# ---- what the host is asked and told


class Answers:
    """Stands in for the host: answers what it is asked, and keeps it."""

    def __init__(self, action: type, check_mode: bool = False, **answers: dict[str, object]) -> None:
        self.answers, self.asked = answers, {}
        self.action = object.__new__(action)
        self.action._task = types.SimpleNamespace(check_mode=check_mode, diff=True)
        self.action._loader = types.SimpleNamespace(path_dwim=lambda path: path)
        self.action._ask = self._ask

    def _ask(self, _module: str, order: dict[str, object], _task_vars: object) -> dict[str, object]:
        self.asked[order["state"]] = order
        return self.answers[order["state"]]

    def act(self, **arguments: object) -> dict[str, object]:
        return self.action._act(arguments, {"ansible_play_name": "Deploy"})


LIVE = {"release": "r1", "revision": "abc", "previous": None, "bytes": 7, "releases": []}
COMMIT = "a" * 40


def state(**more):
    """Return what a host says of the app when all of it is as the list says."""
    (app,) = apps.normalise_apps([APP | {"after_traffic": ["warm"]}])
    texts = apps.host_files(app, "www-data")
    release = apps.release_id(app, COMMIT, "3.13.5")
    as_it_is = {"python": "3.13.5", "commit": COMMIT, "git_says": "", "release": release, "texts": texts, "environment": digest(""), "credentials": digest("{}"), "systemd": None, "environment_works": True, "secrets_left": False, "runs": True, "owes": False, "live": LIVE}
    return {"missing": [], "apps": {"shop": {**as_it_is, **more}}}


def test_a_run_in_which_nothing_differs_says_what_is_live():
    host = Answers(gunicorn_deploy.ActionModule, asked=state())
    told = host.act(apps=[APP | {"after_traffic": ["warm"]}])
    assert (told["changed"], told["apps"], told["live"], list(host.asked)) == (False, [], {"shop": LIVE}, ["asked"])


@pytest.mark.parametrize(("more", "alone"), [({"owes": True}, True), ({"owes": True, "runs": False}, False), ({"release": "another"}, False), ({"owes": True, "secrets_left": True}, False)])
def test_what_is_owed_alone_moves_nothing(more, alone):
    done = {"apps": {"shop": {**LIVE, "release": "r2", "before": "r1", "seconds": 1.5, "waited_for": "bob"}}, "warnings": ["little room"]}
    host = Answers(gunicorn_deploy.ActionModule, asked=state(**more), deployed=done)
    told = host.act(apps=[APP | {"after_traffic": ["warm"]}])
    (order,) = host.asked["deployed"]["apps"]
    assert order["owes_only"] is alone
    assert (told["changed"], told["live"]["shop"]["release"], told["warnings"]) == (True, "r2", ["little room"])
    assert (told["apps"][0]["seconds"], told["apps"][0]["waited_for"]) == (1.5, "bob")
    assert 'play "Deploy"' in host.asked["deployed"]["holder"]


@pytest.mark.parametrize("check_mode", [False, True])
@pytest.mark.parametrize(("more", "words"), [({"commit": None, "git_says": "no such tag"}, "source.version.*no such tag"), ({"python": None}, "python.*is not a Python 3")])
def test_what_a_host_cannot_have_is_told_in_a_dry_run_too(more, words, check_mode):
    app = APP | {"source": {"git": "https://git.example.com/shop.git", "version": "v9"}}
    host = Answers(gunicorn_deploy.ActionModule, check_mode, asked=state(**more))
    with pytest.raises(PorticoError, match=words):
        host.act(apps=[app])
    # It cannot be known while git and Python are not installed.
    host = Answers(gunicorn_deploy.ActionModule, True, asked={**state(**more), "missing": ["git"]})
    assert host.act(apps=[app])["changed"]


def test_a_release_is_recorded_without_who_may_read_its_repository():
    app = APP | {"source": {"git": "https://hunter2x@git.example.com/shop.git", "version": "v1"}}
    host = Answers(gunicorn_deploy.ActionModule, asked=state(), deployed={"apps": {"shop": LIVE}})
    host.act(apps=[app | {"workers": 9}])
    provenance = host.asked["deployed"]["apps"][0]["provenance"]
    assert (provenance["source"], provenance["version"], provenance["revision"]) == ("https://git.example.com/shop.git", "v1", COMMIT)
    assert "@" in provenance["who"] and re.fullmatch(r"\d+\.\d+\.\d+.*", provenance["collection"])


def test_an_app_that_is_to_be_absent_is_removed_if_anything_is_left_of_it():
    gone = {"name": "shop", "state": "absent", "data": "removed"}
    host = Answers(gunicorn_deploy.ActionModule, asked={"missing": [], "apps": {"shop": {"left": ["/srv/portico/shop"]}}}, deployed={"apps": {"shop": {}}})
    told = host.act(apps=[gone])
    assert host.asked["deployed"]["apps"] == [gone]
    assert (told["changed"], told["apps"][0]["reasons"], told["live"]) == (True, ["it is to be absent"], {})
    assert told["diff"][0]["before"] == "/srv/portico/shop\n"
    dry = Answers(gunicorn_deploy.ActionModule, check_mode=True, asked={"missing": [], "apps": {"shop": {"left": ["/srv/portico/shop"]}}})
    assert dry.act(apps=[gone])["changed"] and list(dry.asked) == ["asked"]
    clean = Answers(gunicorn_deploy.ActionModule, asked={"missing": [], "apps": {"shop": {"left": []}}})
    assert not clean.act(apps=[gone])["changed"]


@pytest.mark.parametrize(("check_mode", "verb"), [(False, "r1 is live"), (True, "r1 would be live")])
def test_going_back_says_that_the_list_says_something_else(check_mode, verb):
    done = {"changed": True, "apps": {"shop": {**LIVE, "before": "r2", "seconds": 2.0, "waited_for": None}}}
    host = Answers(gunicorn_rollback.ActionModule, check_mode=check_mode, rolled_back=done)
    told = host.act(name="shop", release="r")
    assert host.asked["rolled_back"]["apps"] == [{"name": "shop", "wanted": "r"}]
    assert (told["app"], told["release"], told["replaced"]) == ("shop", "r1", "r2")
    assert verb in told["msg"] and "deploys what the list says again" in told["msg"]


def test_an_installed_collection_has_its_version_in_its_manifest(tmp_path, monkeypatch):
    (tmp_path / "MANIFEST.json").write_text('{"collection_info": {"version": "1.2.3"}}')
    monkeypatch.setattr(controller, "__file__", str(tmp_path / "plugins/plugin_utils/controller.py"))
    controller.collection_version.cache_clear()
    assert controller.collection_version() == "1.2.3"
    controller.collection_version.cache_clear()
