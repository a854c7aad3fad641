"""The README's first example, word for word, in a project that knows Portico from its tarball alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
NAMES = ("guestbook.example.com", "www.guestbook.example.com")


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A folder with the README's play, its app, and the collection installed."""
    folder = tmp_path_factory.mktemp("project")
    tarballs = tmp_path_factory.mktemp("tarballs")
    galaxy(folder, "build", str(ROOT), "--output-path", str(tarballs))
    (tarball,) = tarballs.iterdir()
    galaxy(folder, "install", str(tarball), "--offline")
    (shown,) = re.findall(r"<!-- examples/guestbook.yml -->\n```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (folder / "guestbook.yml").write_text(shown)
    shutil.copytree(ROOT / "examples/apps/guestbook", folder / "guestbook")
    return folder


@pytest.fixture(scope="module")
def run(project, host, name, address, acme):
    """Run a playbook of the project against this server, to which the README's names lead meanwhile."""
    # And the server reaches itself by them, as it would on the internet.
    line = f"127.0.0.1 {' '.join(NAMES)}"
    host.check_output("grep -qxF %s /etc/hosts || echo %s >>/etc/hosts", line, line)
    for each in NAMES:
        acme.lead(each, address)

    def run(playbook, *arguments):
        command = ["ansible-playbook", "--inventory", os.environ["MOLECULE_INVENTORY_FILE"], "--limit", name, playbook, *arguments]
        done = subprocess.run(command, cwd=project, env=only_what_is_in(project), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return int(re.search(r"changed=(\d+)", done.stdout).group(1))

    return run


def galaxy(project, *arguments):
    subprocess.run(["ansible-galaxy", "collection", *arguments], env=only_what_is_in(project), check=True, capture_output=True)


def only_what_is_in(project):
    return {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(project / "collections"), "ANSIBLE_FORCE_COLOR": "0"}


def test_the_tarball_holds_what_a_user_needs_and_no_more(project):
    installed = project / "collections/ansible_collections/portico/web"
    assert sorted(each.name for each in installed.iterdir()) == [
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "FILES.json",
        "LICENSE",
        "MANIFEST.json",
        "README.md",
        "changelogs",
        "docs",
        "examples",
        "meta",
        "playbooks",
        "plugins",
        "roles",
    ]


def test_the_readmes_play_deploys_the_site(run, visitor):
    assert run("guestbook.yml") > 0
    answer = visitor.get("https://guestbook.example.com/")
    assert answer.status == 200 and "Guestbook" in answer.text
    assert sorted(answer.names) == sorted(NAMES)
    moved = visitor.get("http://guestbook.example.com/?a=b")
    assert (moved.status, moved.headers["Location"]) == (301, "https://guestbook.example.com/?a=b")
    assert run("guestbook.yml") == 0


def test_the_playbooks_are_run_by_their_names(run, project, visitor):
    """The same lists, from variables instead of a play of one's own; and a change of them, taken back."""
    (play,) = yaml.safe_load((project / "guestbook.yml").read_text())
    play["vars"]["gunicorn_apps"][0]["source"]["path"] = str(project / "guestbook")
    variables = {**play["vars"], "portico_hosts": "web"}
    assert run("portico.web.site", "--extra-vars", json.dumps(variables)) == 0

    variables["nginx_sites"][0]["extra_config"] = "location = /extra { return 204; }"
    assert run("portico.web.site", "--extra-vars", json.dumps(variables)) == 1
    assert visitor.get("https://guestbook.example.com/extra").status == 204
    assert run("portico.web.nginx_rollback", "--extra-vars", "portico_hosts=web") == 1
    assert visitor.get("https://guestbook.example.com/extra").status == 404
