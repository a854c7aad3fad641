"""ansible-playbook for tests that run hundreds of plays: what it imports is imported once.

Half of what a small play takes is Python's imports. Here each run is a fork of a process that has them behind it: the same
code from there on, with the same arguments, and an end of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.update(ANSIBLE_FORCE_COLOR="0", ANSIBLE_NOCOLOR="1")

_PLAYS = multiprocessing.get_context("forkserver")
_PLAYS.set_forkserver_preload(
    [
        "pytest",  # what a forked process takes for its main module imports it
        "plays",
        "ansible.cli.playbook",
        "ansible.executor.task_queue_manager",
        "ansible.plugins.action.normal",
        "ansible.plugins.callback.default",
        "ansible.plugins.strategy.linear",
        "ansible_collections.portico.web.plugins.plugin_utils.render",
    ]
)


def _environment() -> dict[str, str]:
    """What of the environment Ansible reads when it is imported."""
    return {name: value for name, value in os.environ.items() if name.startswith("ANSIBLE_")}


_IMPORTED_WITH = _environment()


def playbook(*arguments: str) -> tuple[int, str]:
    """Run ansible-playbook with these arguments, and return its exit status and whatever it printed."""
    if _environment() != _IMPORTED_WITH:
        done = subprocess.run(["ansible-playbook", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return done.returncode, done.stdout
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        process = _PLAYS.Process(target=_run, args=(arguments, os.fspath(output)))
        process.start()
        process.join()
        return process.exitcode or 0, output.read_text()


def _run(arguments: tuple[str, ...], output: str) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT, 0o600)
    os.dup2(file, sys.stdout.fileno())
    os.dup2(file, sys.stderr.fileno())
    from ansible.cli.playbook import main  # not where it has not been imported: the tests themselves do without

    sys.argv = ["ansible-playbook", *arguments]
    main()
