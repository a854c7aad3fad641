"""The host's own tool as one file: the same bytes from the same sources, and it runs where nothing else is."""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ansible_collections.portico.web.plugins.module_utils import units
from ansible_collections.portico.web.plugins.plugin_utils import tool


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("tool") / "portico-certificates"
    path.write_bytes(tool.build())
    path.chmod(0o755)
    return path


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd="/", env={"PATH": os.environ["PATH"]}, check=False)


def test_it_is_the_same_file_every_time():
    first = tool.build()
    tool.build.cache_clear()
    assert tool.build() == first
    assert first.startswith(b"#!/usr/bin/python3 -IS\n")
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        assert archive.testzip() is None
        assert {(entry.compress_type, entry.date_time) for entry in archive.infolist()} == {(zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))}


def test_it_has_all_that_it_imports_and_nothing_of_ansible():
    with zipfile.ZipFile(io.BytesIO(tool.build())) as archive:
        for name in archive.namelist():
            for node in ast.walk(ast.parse(archive.read(name))) if name.endswith(".py") else ():
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names] if isinstance(node, ast.Import) else []
                assert all(module.split(".")[0] in {*sys.stdlib_module_names, "ansible_collections"} for module in modules), name
    assert "own_certificates" in tool.needed(), "what is imported only where it is needed is part of it too"


def test_it_runs_on_a_machine_without_anything(program):
    done = run(str(program), "status")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "portico.web keeps no certificate on this host.\n"
    assert json.loads(run(str(program), "status", "--json").stdout) == []


def test_a_wrong_word_is_told(program):
    done = run(str(program), "renwe")
    assert done.returncode == 2 and "renew" in done.stderr


def test_another_collection_of_that_name_is_not_taken_for_it(program, tmp_path):
    """As Debian's package ansible would have it, which a host may have."""
    (tmp_path / "ansible_collections").mkdir()
    (tmp_path / "ansible_collections/__init__.py").write_text("raise SystemExit('another one')\n")
    done = subprocess.run([program, "status"], capture_output=True, text=True, timeout=60, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_unit_runs_a_verb_that_there_is(program):
    known = run(str(program), "--help").stdout
    texts = units.files()
    for timer in units.TIMERS:
        assert f"/etc/systemd/system/{timer}" in texts and f"/etc/systemd/system/{timer.replace('.timer', '.service')}" in texts
    commands = [line.split()[-2:] for text, _mode in texts.values() for line in text.splitlines() if line.startswith(("ExecStart=", "exec "))]
    assert len(commands) == 3
    for path, verb in commands:
        assert Path(path.removeprefix("ExecStart=")).name == "portico-certificates" and verb in known
    assert texts[units.DEPLOY_HOOK][1] == 0o755
