"""The lock that one run has, and the log that tells why nginx refused."""

from __future__ import annotations

import fcntl
import os
import threading

import pytest

from ansible_collections.portico.web.plugins.module_utils.files import LogFromNow
from ansible_collections.portico.web.plugins.modules import nginx_generation
from ansible_collections.portico.web.plugins.modules.nginx_generation import GenerationError, Lock


@pytest.fixture
def held(tmp_path, monkeypatch):
    """The lock, in the hands of somebody else until it is closed."""
    monkeypatch.setattr(nginx_generation, "LOCK", str(tmp_path / "lock"))
    file = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    os.write(file, b'ann@desk, play "Deploy", since 10:00:00\n')
    fcntl.flock(file, fcntl.LOCK_EX)
    yield file


def test_a_run_that_waits_in_vain_says_for_whom(held):
    with pytest.raises(GenerationError, match=r'ann@desk, play "Deploy", since 10:00:00.*during 1 seconds'), Lock("bob@desk", patience=1):
        pass
    os.close(held)


def test_a_run_that_waits_knows_for_whom_and_is_the_next_holder(held):
    release = threading.Timer(0.1, os.close, [held])
    release.start()
    with Lock("bob@desk", patience=30) as lock:
        assert lock.waited_for == 'ann@desk, play "Deploy", since 10:00:00'
        with open(nginx_generation.LOCK) as file:
            assert file.read().startswith("bob@desk, since ")
    release.join()
    with Lock("carl@desk", patience=30) as lock:
        assert lock.waited_for is None


@pytest.mark.parametrize("before", ["", "é " * 40 + "\n"])
def test_a_log_is_read_from_now_on(tmp_path, before):
    path = tmp_path / "error.log"
    path.write_text(before, encoding="utf-8")
    log = LogFromNow(str(path))
    assert log.read() == ""
    with path.open("a", encoding="utf-8") as file:
        file.write("[emerg] é\n")
    assert log.read() == "[emerg] é\n"
    path.rename(tmp_path / "error.log.1")
    assert log.read() == ""
    path.write_text("anew\n")
    assert log.read() == "anew\n"
