"""The hosts of these tests, all of them at once: a fault is caused once, and each host is judged by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from scene import FAULTS, Fault, Outcome, Scene


@pytest.fixture(scope="session")
def scene(play: Callable[..., Any]) -> Scene:
    return Scene(play)


@pytest.fixture(scope="session")
def renewed(scene: Scene) -> Callable[[Fault], dict[str, Outcome]]:
    """What became of the renewal under each fault. What cannot be caused on one host is no reason to cause it on all again."""
    known: dict[str, dict[str, Outcome] | Exception] = {}

    def outcomes(fault: Fault) -> dict[str, Outcome]:
        if fault.name not in known:
            try:
                known[fault.name] = scene.renew_under(fault)
            except Exception as error:
                known[fault.name] = error
        found = known[fault.name]
        if isinstance(found, Exception):
            raise found
        return found

    return outcomes


@pytest.fixture(params=FAULTS, ids=lambda fault: fault.name)
def fault(request: pytest.FixtureRequest) -> Fault:
    return request.param


@pytest.fixture
def outcome(renewed: Callable[[Fault], dict[str, Outcome]], fault: Fault, name: str) -> Outcome:
    return renewed(fault)[name]
