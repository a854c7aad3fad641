"""The playbooks that a person or a job in CI runs for one app, as far as the controller goes, and what the job is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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
    assert 'gunicorn_apps, entry "shop", key "source.version": "" is not a branch, tag or commit.' in error


def test_a_host_that_is_not_reached_is_reported_and_fails(play, tmp_path):
    run = play("deploy.yml", app="shop", result="result.json")
    assert run.returncode != 0, run.stdout
    told = json.loads((tmp_path / "result.json").read_text())
    assert told["failed"] and {host["error"] for host in told["hosts"]} == {"the host was not reached"}


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
