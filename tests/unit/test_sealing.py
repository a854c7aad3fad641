"""What root does with files that an app could write a moment before."""

from __future__ import annotations

import os
import stat

import app_on_host
import pytest

from ansible_collections.portico.web.plugins.module_utils.steps import StepError
from ansible_collections.portico.web.plugins.modules.gunicorn_release import App


@pytest.fixture
def seal(tmp_path):
    """Seal a source with these static folders."""
    source = tmp_path / "source"
    source.mkdir()

    def seal(*static):
        _steps, module = app_on_host.steps()
        App(module, {"name": "shop", "static": list(static), "python": "/usr/bin/python3"}).releases._seal(str(source))
        return source

    return seal


def test_static_folders_are_opened_and_nothing_else(seal, tmp_path):
    (tmp_path / "source" / "out" / "static").mkdir(parents=True)
    (tmp_path / "source" / "secret.py").write_text("x")
    source = seal("out/static")
    assert stat.S_IMODE(os.stat(source / "out" / "static").st_mode) & 0o005 == 0o005
    assert stat.S_IMODE(os.stat(source / "secret.py").st_mode) & 0o007 == 0


@pytest.mark.parametrize("link", ["static", "out"])
def test_a_static_folder_that_is_a_link_opens_nothing(seal, tmp_path, link):
    private = tmp_path / "private"
    (private / "static").mkdir(parents=True)
    private.chmod(0o700)
    (tmp_path / "source" / link).symlink_to(private)
    with pytest.raises(StepError, match="the static folder"):
        seal("static" if link == "static" else "out/static")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
