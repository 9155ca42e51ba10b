"""Every answer is as the OpenAPI document says, whatever is sent. ``make fuzz`` is the long run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.service.fuzz import fuzz
from tests.service.mapped_world import make_mapped
from tests.service.process import serving
from tests.service.world import make_world


@pytest.mark.parametrize("ids", ["numeric", "mapped"])
def test_generated_requests_are_answered_as_documented(tmp_path: Path, ids: str) -> None:
    world = make_world(tmp_path)  # of its own: items are put and deleted
    store = make_mapped(world, tmp_path).store if ids == "mapped" else world.store
    with serving(world.models, store) as service:
        # The Open Inference Protocol has tests and a client of its own, and many operations.
        outcome = fuzz(service.url, examples=5, seed=1, leave_out="^/v2/")
    assert outcome.breaches == outcome.server_errors == 0, outcome.said
    assert outcome.cases > 200
    assert {"200", "204", "404", "422"} <= outcome.statuses.keys()
