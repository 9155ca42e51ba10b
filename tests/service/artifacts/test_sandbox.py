"""The child process that verifies a bundle."""

from __future__ import annotations

import os

import pytest

from service.artifacts import sandbox
from service.artifacts.sandbox import SandboxLimits
from service.engine.niceness import LOWEST
from tests.service.world import World


@pytest.mark.parametrize("niceness", [0, LOWEST])
def test_a_bundle_is_inspected_at_the_priority_that_is_told(world: World, niceness: int) -> None:
    """The first one at our own: nobody is being answered yet."""
    child = sandbox.start(world.bundle, SandboxLimits(1 << 32, 60), niceness)
    said, _ = child.communicate(timeout=60)
    assert b'"proved":true' in said
    told = os.getpriority(os.PRIO_PROCESS, 0) + niceness
    assert f'"niceness":{min(told, LOWEST)}'.encode() in said
