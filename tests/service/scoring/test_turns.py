"""A long list whose turns are smaller while short lists come has the answer that it has alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from service.state import ServiceState
from tests.service.in_process import ask, opened
from tests.service.quantised import with_int8
from tests.service.world import World


async def _answer_and_chunks(state: ServiceState, **asked: Any) -> tuple[dict[str, Any], int]:
    before = state.engine.chunks
    answer = (await ask(state, **asked)).json()
    return {name: answer[name] for name in ("item_ids", "scores")}, state.engine.chunks - before


@pytest.fixture
def asked(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("service.engine.engine.SHORT_EXPECTED_S", 60.0)
    candidates = np.random.default_rng(0).choice(world.ids, 320).tolist()
    return {"user_id": 3, "candidates": candidates}


async def test_in_float32_it_is_cut_finer(world: World, asked: dict[str, Any]) -> None:
    async with opened(world, chunk_candidates=64, min_chunk_candidates=32) as state:
        alone, chunks = await _answer_and_chunks(state, **asked)
        assert chunks == 5
        await ask(state, user_id=3, candidates=asked["candidates"][:5])
        beside, more = await _answer_and_chunks(state, **asked)
        assert beside == alone
        assert more == 10


async def test_it_is_not_where_scores_depend_on_how_a_list_is_cut(
    world: World, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_export.bundle.runtime.is_batch_invariant", lambda *_: False)
    with capture_logs() as told:
        async with opened(world, chunk_candidates=64, min_chunk_candidates=32) as state:
            await ask(state, user_id=3, candidates=asked["candidates"][:5])
            _, chunks = await _answer_and_chunks(state, **asked)
            assert chunks == 5
    assert any("depend on how a list is cut" in line["event"] for line in told)


async def test_in_int8_it_is_not(
    world: World, asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A score depends on the candidates of its chunk there."""
    quantised = with_int8(world, tmp_path_factory.mktemp("int8"))
    sizes = {"chunk_candidates": 64, "min_chunk_candidates": 32}
    async with opened(quantised, precision="int8", **sizes) as state:
        alone, chunks = await _answer_and_chunks(state, **asked)
        await ask(state, user_id=3, candidates=asked["candidates"][:5])
        beside, more = await _answer_and_chunks(state, **asked)
        assert beside == alone
        assert more == chunks
