"""What holds for every scenario once it has converged."""

from __future__ import annotations

import os
import re
from pathlib import Path


def test_a_dry_run_reports_no_change(play, name):
    run = play("converge.yml", "--limit", name, "--check", "--diff")
    assert run.ok, run.output
    assert run.changed == {name: 0}, run.output


def test_ansible_has_nothing_to_warn_about():
    log = Path(os.environ["ANSIBLE_LOG_PATH"]).read_text()
    assert re.findall(r"^.*\[(?:DEPRECATION )?WARNING\].*$", log, re.M) == []


def test_no_unit_has_failed(host):
    assert host.check_output("systemctl --failed --no-legend --plain") == ""
