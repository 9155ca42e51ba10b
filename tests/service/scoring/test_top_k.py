"""``top_k`` of a service that computes in int8: the answers of one that does not."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from model_export.bundle.top_k import best
from service.state import ServiceState
from tests.service.in_process import ask, metric, opened
from tests.service.quantised import with_int8
from tests.service.world import World

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def quantised(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    return with_int8(world, tmp_path_factory.mktemp("int8"))


def questions(world: World, count: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(5)
    users = sorted(world.users)
    found = []
    for number in range(count):
        size = int(random.integers(1, 200))
        found.append(
            {
                "user_id": users[number % len(users)],
                "candidates": random.choice(world.ids, size).tolist(),
                "top_k": int(random.integers(1, 30)),
            }
        )
        if number % 3 == 0:
            found[-1]["context"] = {"likes_level": random.integers(0, 11, size).tolist()}
        if number % 5 == 0:
            found[-1]["candidates"][0] = 10**15 + 1  # unknown
    return found


async def until(state: ServiceState, result: str) -> None:
    """Some recheck came out like this."""
    async with asyncio.timeout(PATIENCE_S):
        while metric(state, "qin_top_k_rechecks_total", result=result) < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def answers(state: ServiceState, asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for query in asked:
        answer = (await ask(state, **query)).json()
        found.append({name: answer[name] for name in ("item_ids", "scores", "unknown_items")})
    return found


async def test_ids_scores_and_order_are_those_of_float32(quantised: World) -> None:
    asked = questions(quantised, 60)
    async with opened(quantised) as plain:
        expected = await answers(plain, asked)
        assert metric(plain, "qin_int8") == 0
        assert metric(plain, "qin_top_k_rescored_total") == 0
    async with opened(quantised, precision="int8", top_k_recheck=1.0) as state:
        assert metric(state, "qin_int8") == 1
        assert await answers(state, asked) == expected
        assert metric(state, "qin_top_k_rescored_total") > 0

        async def rechecked() -> float:
            kinds = ("equal", "different", "passed_over", "failed")
            found = {k: metric(state, "qin_top_k_rechecks_total", result=k) for k in kinds}
            assert found["different"] == found["failed"] == 0
            return found["equal"]

        async with asyncio.timeout(PATIENCE_S):
            while await rechecked() < 10:
                await answers(state, asked[:4])


async def test_without_top_k_the_scores_are_int8s_own(quantised: World) -> None:
    candidates = quantised.ids[:100].tolist()
    async with opened(quantised, precision="int8") as state:
        answer = (await ask(state, user_id=3, candidates=candidates)).json()
        truth = quantised.answer(quantised.users[3], quantised.ids[:100])
        apart = np.abs(np.array(answer["scores"]) - truth)
        assert 1e-5 < apart.max() < 0.2
        everything = (await ask(state, user_id=3, candidates=candidates, top_k=100)).json()
        order = best(truth, 100)
        np.testing.assert_allclose(everything["scores"], truth[order], atol=1e-5)


async def test_a_wrong_answer_is_counted_and_told(
    quantised: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if some candidates' error were far beyond what any rescored one shows."""
    with capture_logs() as told:
        async with opened(quantised, precision="int8", top_k_recheck=1.0) as state:
            await answer_wrongly(quantised, state, monkeypatch)
    assert "a top-k answer differs from a full float32 pass" in [line["event"] for line in told]


async def answer_wrongly(
    quantised: World, state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = state.registry.active.model
    honest = model.logits

    def blind(items: Any, history: Any, precision: Any = "fp32", user: Any = None) -> Any:
        logits = honest(items, history, precision, user)
        logits[np.argmax(logits)] = -20.0
        return logits

    monkeypatch.setattr(model, "logits", blind)
    answer = await ask(state, user_id=3, candidates=quantised.ids[:60].tolist(), top_k=3)
    assert answer.status_code == 200
    await until(state, "different")
    assert state.registry.under_way(state.registry.active) == 0


async def test_a_list_beyond_the_bound_is_scored_in_float32(
    quantised: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = questions(quantised, 12)
    async with opened(quantised) as plain:
        expected = await answers(plain, asked)
    async with opened(quantised, precision="int8") as state:
        monkeypatch.setattr(state.registry.active.model, "logit_bound", 1e-9)
        assert await answers(state, asked) == expected
        assert metric(state, "qin_top_k_out_of_bound_total") > 0


async def test_a_recheck_whose_rows_have_gone_is_passed_over(
    quantised: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(quantised, precision="int8", top_k_recheck=1.0) as state:
        rechecks, held = state.audit, asyncio.Event()
        compare = type(rechecks)._compare

        async def later(self: Any, given: Any) -> str:
            await held.wait()
            return await compare(self, given)

        monkeypatch.setattr(type(rechecks), "_compare", later)
        await ask(state, user_id=3, candidates=quantised.ids[:60].tolist(), top_k=3)
        state.registry.active.table.memory.generations[:] += 1  # every slot is another item's now
        held.set()
        await until(state, "passed_over")
