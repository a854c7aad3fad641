"""The instrument that kills what runs on a host: it counts what matters, and kills before, not after."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

FAULTS = Path(__file__).parents[2] / "molecule/faults"


@pytest.fixture
def run(tmp_path):
    """Run lines of Python under the instrument: W is the folder that is watched, B one of harmless commands."""
    for folder in ("watched", "fault", "bin"):
        (tmp_path / folder).mkdir()
    for command in ("systemctl", "nginx"):
        (tmp_path / "bin" / command).symlink_to("/bin/true")

    def run(lines, kill_before=None):
        if kill_before:
            (tmp_path / "fault/kill-before").write_text(str(kill_before))
        armed = f"import os, shutil, subprocess, portico_fault as f; f.PLACE, f.WATCHED = {str(tmp_path / 'fault')!r}, ({str(tmp_path / 'watched')!r},)"
        script = f"{armed}; W, B = f.WATCHED[0], {str(tmp_path / 'bin')!r}\n{lines}"
        environment = {"PYTHONPATH": str(FAULTS), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}
        done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
        steps = tmp_path / "fault/steps"
        told = steps.read_text().replace(f"{tmp_path}/watched", "W").replace(f"{tmp_path}/bin", "B").splitlines() if steps.exists() else []
        return done.returncode, told

    return run


@pytest.mark.parametrize(
    ("lines", "steps"),
    [
        ("open(W + '/a', 'w').close()", ["open W/a"]),
        ("os.close(os.open(W + '/a', os.O_WRONLY | os.O_CREAT))", ["open W/a"]),
        ("os.symlink('a', W + '/b'); os.replace(W + '/b', W + '/c')", ["os.symlink W/b", "os.rename W/b W/c"]),
        ("os.makedirs(W + '/a/b'); shutil.rmtree(W + '/a')", ["os.mkdir W/a", "os.mkdir W/a/b", "os.rmdir W/a/b", "os.rmdir W/a"]),
        ("os.chdir(W); os.mkdir('a'); os.chmod(b'a', 0o700)", ["os.mkdir W/a", "os.chmod W/a"]),
        ("os.listdir(W); os.mkdir(W + '/../other'); open('/dev/null', 'w').close()", []),
        ("subprocess.run(['systemctl', 'reload', 'nginx'])", ["run systemctl reload nginx"]),
        ("subprocess.run(['systemctl', 'is-active', 'nginx']); subprocess.run(['true', 'nginx'])", []),
        ("subprocess.run([f'{B}/nginx', '-t']); subprocess.run([f'{B}/nginx', '-V'])", ["run B/nginx -t"]),
        ("os.kill(os.getppid(), 0)", []),
    ],
)
def test_a_step_is_what_can_change_the_host(run, lines, steps):
    assert run(lines) == (0, steps)


def test_the_step_that_is_named_does_not_happen(run, tmp_path):
    status, steps = run("os.mkdir(W + '/a'); os.mkdir(W + '/b'); os.mkdir(W + '/c')", kill_before=2)
    assert status == -signal.SIGKILL
    assert steps == ["os.mkdir W/a", "os.mkdir W/b"]
    assert [path.name for path in (tmp_path / "watched").iterdir()] == ["a"]


def test_steps_are_counted_across_processes(run, tmp_path):
    assert run("os.mkdir(W + '/a')", kill_before=2)[0] == 0
    assert run("os.mkdir(W + '/b')")[0] == -signal.SIGKILL
    assert not (tmp_path / "watched/b").exists()
