"""A log is read from now on, whatever becomes of its file."""

from __future__ import annotations

import pytest

from ansible_collections.portico.web.plugins.module_utils.files import LogFromNow


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
