"""The host's own tool as one file: what is in it, that it runs alone, and that it is always the same."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile

import pytest

from ansible_collections.portico.web.plugins.module_utils import layout
from ansible_collections.portico.web.plugins.plugin_utils import tool

PACKAGE = "ansible_collections/portico/web/plugins/module_utils"

# What a host's Python does with it, on a host whose files are all below one folder.
ELSEWHERE = f"""
import sys
sys.path.insert(0, sys.argv[1])
from {PACKAGE.replace("/", ".")} import layout
for name in ("CERTBOT", "NGINX", "CERTIFICATES", "LINEAGES", "PLACEHOLDER"):
    setattr(layout, name, sys.argv[2] + "/" + name)
from {PACKAGE.replace("/", ".")} import keeper
assert sys.argv[1] in keeper.__file__, keeper.__file__
keeper.os.geteuid = lambda: 0
keeper.LOCK = sys.argv[2] + "/lock"
sys.exit(keeper.main(sys.argv[3:]))
"""


@pytest.fixture
def installed(tmp_path):
    path = tmp_path / "portico-certificates"
    path.write_bytes(tool.build())
    path.chmod(0o755)
    return path


def run(*argv):
    return subprocess.run([sys.executable, "-I", *map(str, argv)], capture_output=True, text=True, cwd="/", env={}, check=False)


def test_it_is_the_same_whenever_it_is_made():
    again = tool.build.__wrapped__()
    assert again == tool.build()
    with zipfile.ZipFile(io.BytesIO(again)) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
        assert archive.namelist() == sorted(archive.namelist())


def test_it_has_what_it_leads_to_and_nothing_else():
    assert {"keeper", "serving", "register", "certbot", "lineage", "own_certificates", "commands"} <= set(tool.modules())
    assert not {"lexer", "packages", "units", "strangers"} & set(tool.modules())


def test_it_needs_nothing_of_ansible():
    for name in tool.modules():
        modules = [line.split()[1] for line in tool._source(name).decode().splitlines() if line.startswith(("import ", "from "))]
        assert not [each for each in modules if each == "ansible" or each.startswith("ansible.")], name


def test_a_host_runs_it_alone(installed):
    done = run(installed, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: portico-certificates" in done.stdout
    assert installed.read_bytes().startswith(b"#!/usr/bin/python3 -I\n")


def test_a_verb_is_needed(installed):
    assert run(installed).returncode == 2


@pytest.mark.parametrize(("verb", "said"), [("status", "This host has no certificates.\n"), ("reconcile", "")])
def test_a_host_that_has_nothing_is_well(installed, tmp_path, verb, said):
    done = run("-c", ELSEWHERE, installed, tmp_path, verb)
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def test_it_stands_where_people_find_it():
    assert layout.TOOL.rpartition("/")[2] == "portico-certificates"
