"""Plays and scenarios of the tests are run as a person would run them, only sooner."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from plays import playbook

SCENARIOS = Path(__file__).parents[2] / "tools/scenarios"
PLAY = """
- name: Say {word}
  hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Compare
      ansible.builtin.assert:
        that: "'{word}' != 'bad'"
"""


def test_plays_at_once_each_have_an_end_of_their_own(tmp_path):
    def run(word):
        path = tmp_path / f"{word}.yml"
        path.write_text(PLAY.format(word=word))
        return playbook("--inventory", "localhost,", str(path))

    with ThreadPoolExecutor(3) as pool:
        good, bad, other = pool.map(run, ("good", "bad", "other"))
    assert (good[0], bad[0], other[0]) == (0, 2, 0)
    assert "PLAY [Say good]" in good[1] and "PLAY [Say other]" in other[1]
    assert "Say good" not in other[1] and "failed=1" in bad[1] and "\x1b" not in bad[1]


def test_a_playbook_that_is_not_there_is_an_error_of_ansibles():
    status, output = playbook("--inventory", "localhost,", "/no/such.yml")
    assert status == 1 and "/no/such.yml could not be found" in output


def test_what_ansible_reads_in_the_environment_counts(tmp_path, monkeypatch):
    path = tmp_path / "good.yml"
    path.write_text(PLAY.format(word="good"))
    arguments = ("--inventory", "localhost,", "--check", str(path))
    assert "[CHECK MODE]" not in playbook(*arguments)[1]
    monkeypatch.setenv("ANSIBLE_CHECK_MODE_MARKERS", "1")
    status, output = playbook(*arguments)
    assert status == 0 and "[CHECK MODE]" in output


@pytest.fixture
def scenarios(tmp_path, monkeypatch):
    """Run some scenarios with a molecule that writes down what it is asked for; "bad" fails, and pairs wait for each other."""
    molecule = tmp_path / "molecule"
    molecule.write_text(
        "#!/bin/sh\n"
        f"cd {tmp_path}\n"
        'echo "begin $3" >>log\n'
        # Both of a pair end only when both have begun.
        'case $3 in pair*) timeout 20 sh -c "until [ \\$(grep -c \'begin pair\' log) = 2 ]; do :; done" || exit 3 ;; esac\n'
        'echo "this is $3"; echo "and its end"\n'
        '[ "$3" != bad ]\n'
    )
    molecule.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def run(*names):
        done = subprocess.run([sys.executable, SCENARIOS, *names], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, (tmp_path / "log").read_text().splitlines()

    return run


def test_two_scenarios_run_at_once_and_speak_one_after_the_other(scenarios):
    status, output, log = scenarios("pair1", "pair2", "single")
    assert status == 0, output
    assert sorted(log) == ["begin pair1", "begin pair2", "begin single"]
    for name in ("pair1", "pair2", "single"):
        assert f"this is {name}\nand its end\nScenario {name}: passed\n" in output


def test_after_a_scenario_that_failed_no_other_is_begun(scenarios):
    status, output, log = scenarios("bad", *(f"x{number}" for number in range(40)))
    assert status == 1 and "Scenario bad: failed" in output
    assert len(log) < 40


def test_a_single_scenario_is_molecule_itself(scenarios):
    assert scenarios("bad")[:2] == (1, "this is bad\nand its end\n")
