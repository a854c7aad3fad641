"""Other programs: what they leave is told, and none of them stays."""

from __future__ import annotations

import os
import time

import pytest

from ansible_collections.portico.web.plugins.module_utils import commands


def test_what_a_program_left_is_told():
    assert commands.run(["sh", "-c", "cat; echo no >&2; exit 3"], text="words") == commands.Done(3, "words", "no\n")


def test_programs_run_while_their_caller_does_something_else(tmp_path):
    """Each of the two waits for the other: one after the other they would wait in vain."""
    for name in ("one", "other"):
        os.mkfifo(tmp_path / name)
    one = commands.Running(["sh", "-c", f"echo a >{tmp_path}/one; cat {tmp_path}/other"])
    other = commands.Running(["sh", "-c", f"cat {tmp_path}/one; echo b >{tmp_path}/other"])
    assert (other.done(10), one.done(10)) == (commands.Done(0, "a\n", ""), commands.Done(0, "b\n", ""))


def test_more_than_a_pipe_has_room_for_waits_for_its_reader():
    talker = commands.Running(["head", "-c", "300000", "/dev/zero"])
    assert len(talker.done(10).out) == 300_000


def test_a_program_that_is_not_there_is_told_when_it_is_asked():
    assert commands.Running(["/no/such/program"]).done().rc == commands.run(["/no/such/program"]).rc == 127


def test_a_program_whose_time_is_over_is_ended_with_all_that_it_started(tmp_path):
    began = time.monotonic()
    left = commands.run(["sh", "-c", f"sleep 60 & echo $! >{tmp_path}/child; echo waits; wait"], seconds=0.3)
    assert (left.rc, left.out) == (124, "waits\n") and time.monotonic() - began < 10
    child = int((tmp_path / "child").read_text())
    with pytest.raises(ProcessLookupError):
        for _again in range(100):
            os.kill(child, 0)
            time.sleep(0.05)  # whoever adopts it takes note of its end in a moment, and tells nobody
