"""The hosts of these tests, all of them at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scene import Scene


@pytest.fixture(scope="session")
def scene(play: Callable[..., Any]) -> Scene:
    return Scene(play)
