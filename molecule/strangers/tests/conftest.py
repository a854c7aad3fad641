"""What the stories of this scenario do: run its play on one host."""

from __future__ import annotations

import json

import pytest
from scene import WITHOUT_NGINX


@pytest.fixture(scope="module")
def play_of(play, name):
    """Run the play on this host alone, with some variables, and expect that it ends well, or does not."""

    def publish(*flags, ok=True, **variables):
        run = play("publish.yml", "--limit", name, "--extra-vars", json.dumps(variables), *flags)
        assert run.ok == ok, run.output
        return run

    return publish


@pytest.fixture(scope="module")
def bare(host, play_of):
    """A host that has no nginx, and nothing of what the story before has left."""
    play_of(nginx_state="absent")
    host.check_output(WITHOUT_NGINX)
    return host
