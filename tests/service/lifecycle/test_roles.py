"""One store serves versions whose features have other roles and orders, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feature_store.codec import by_name
from feature_store.schema import FeatureSchema
from loadtest.oracle.bundle_oracle import BundleOracle
from model_export.build import build
from model_export.quality.random_network import random_network
from tests.service.lifecycle.conftest import Swapping, running
from tests.service.parity import TOLERANCE
from tests.service.world import SMALL, SMALL_SIZES, load, make_world

LEVELS = FeatureSchema.model_validate(
    SMALL.model_dump() | {"item": [f.model_dump() for f in (*SMALL.context, *SMALL.item)]}
)


@pytest.fixture(params=[SMALL, LEVELS], ids=["store of plain", "store of levels"])
def swapping(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Swapping]:
    """``small-1`` is plain, ``small-2`` has its levels in the items of the history, too."""
    world = make_world(tmp_path)
    levels = random_network(LEVELS, SMALL_SIZES, seed=99)
    build(levels, world.models, version="small-2")
    url = f"lmdb://{tmp_path / 'other'}"
    rows = by_name(world.rows, request.param.item_dtype)
    asyncio.run(load(url, request.param, world.ids, rows, world.users))
    networks = {"small-1": world.network, "small-2": levels}
    yield from running(replace(world, store=url), networks)


def test_plain_and_levels_are_swapped_on_one_store(swapping: Swapping) -> None:
    oracle = BundleOracle(swapping.world.models, swapping.world.store)
    assert not oracle.skipped
    candidates = swapping.world.ids[:20]
    context = {"likes_level": [3] * 20, "views_level": [2] * 20}
    requests: list[dict[str, Any]] = [{}, {"context": context}]
    for version in ("small-2", "small-1", "small-2"):
        assert swapping.tell(f"{version}/activate").status_code == 200
        swapping.serves(version)
        for request in requests:
            answer = swapping.score(**request)
            assert answer.status_code == 200, answer.text
            asked = {"user_id": 3, "candidates": candidates.tolist(), **request}
            expected = oracle.scores(version, asked)
            assert answer.json()["scores"] == pytest.approx(expected, abs=TOLERANCE)
    oracle.close()
