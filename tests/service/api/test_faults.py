"""What goes wrong inside: said, counted, and never a made-up number."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from feature_store import connect
from feature_store.contract import Ids, ItemRows
from feature_store.lmdb.environment import acquire, release
from model_export.bundle.runtime import FoldedModel
from service.application import build_application
from service.models.loaded_model import LoadedModel
from service.settings import Settings
from service.state import ServiceState
from tests.service.in_process import ask, client_of, metric, opened
from tests.service.parity import TOLERANCE
from tests.service.world import World, make_rows, make_world


@pytest.fixture
def own_world(tmp_path: Path) -> World:
    """A world this test may damage."""
    return make_world(tmp_path, items=60, users=5)


@pytest.fixture
async def state(own_world: World) -> AsyncIterator[ServiceState]:
    async with opened(own_world) as state:
        yield state


async def test_before_a_version_is_loaded_the_answer_is_503_and_readyz_says_what_for(
    own_world: World,
) -> None:
    settings = Settings(bundle=own_world.models, store=own_world.store, threads=1)
    async with build_application(settings) as (state, _), client_of(state) as client:
        state.readiness.enter("filling the item table", 91_717)
        state.readiness.done = 4096
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["waiting_for"] == "filling the item table: 4,096 of 91,717"
        assert (await client.get("/livez")).status_code == 200
        answer = await client.post("/v1/score", json={"user_id": 1, "candidates": [1]})
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "1"


async def test_a_process_that_starts_does_not_count_as_a_worker(own_world: World) -> None:
    """One that ends before it is ready, again and again, is missing all the time."""
    settings = Settings(bundle=own_world.models, store=own_world.store, threads=1)
    async with build_application(settings) as (state, bundle):
        assert metric(state, "qin_workers") == 0
        await state.load(bundle)
        assert metric(state, "qin_workers") == 1


async def test_an_item_newer_than_the_table_is_fetched_once_and_kept(
    own_world: World, state: ServiceState
) -> None:
    await state.refresher.close()  # or it brings them back too, before or after the request
    random = np.random.default_rng(0)
    new, rows = np.array([10**12, 10**12 + 1]), make_rows(own_world.schema, 2, random)
    await state.store.put_items(new, rows)
    await state.store.put_histories({77: new})
    before = metric(state, "qin_store_duration_seconds_count", operation="items")
    candidates = [*new.tolist(), int(own_world.ids[0])]
    first = await ask(state, user_id=77, candidates=candidates)
    second = await ask(state, user_id=77, candidates=candidates)
    assert first.json()["unknown_items"] == []
    assert first.json()["scores"] == second.json()["scores"]
    assert metric(state, "qin_store_duration_seconds_count", operation="items") == before + 1


@pytest.mark.parametrize("room", [0, 20])
async def test_without_room_in_the_table_the_answers_are_the_same(
    own_world: World, room: int
) -> None:
    async with opened(own_world, max_table_items=room) as state:
        candidates = own_world.ids[:40]
        answer = await ask(state, user_id=3, candidates=candidates.tolist())
        expected = own_world.answer(own_world.users[3], candidates)
        assert answer.json()["scores"] == pytest.approx(expected, abs=TOLERANCE)
        assert set(answer.json()["cold_items"]) == own_world.cold_ids & set(candidates.tolist())
        assert state.registry.active is not None
        assert state.registry.active.table.count == room
        assert metric(state, "qin_item_table_refused_total") > 0


def damage(world: World, item: int) -> None:
    """Overwrite an item's record with bytes that are none."""
    environment = acquire(Path(world.store.removeprefix("lmdb://")), create=False)
    environment.write(
        lambda txn: txn.put(struct.pack(">Q", item), b"nonsense", db=environment.db["items"])
    )
    release(environment)


async def test_a_damaged_record_is_listed_and_the_rest_is_scored(own_world: World) -> None:
    damaged, fine = own_world.ids[:2].tolist()
    damage(own_world, damaged)
    async with opened(own_world) as state:
        answer = (await ask(state, user_id=10**9, candidates=[damaged, fine])).json()
        assert answer["scores"][0] is None
        assert answer["scores"][1] is not None
        assert answer["unreadable_items"] == [damaged]
        assert answer["unknown_items"] == []
        assert answer["degraded"] == ["items"]
        assert metric(state, "qin_items_total", kind="unreadable") == 1

        past = (await ask(state, user_id=1, candidates=[fine], history=[damaged, fine])).json()
        assert past["degraded"] == ["history"]
        assert past["unreadable_items"] == [damaged]
        alone = (await ask(state, user_id=1, candidates=[fine], history=[fine])).json()
        assert past["scores"] == alone["scores"]


@pytest.mark.parametrize("when", ["before the table is filled", "after"])
async def test_a_record_that_is_not_finite_spoils_no_other_score(
    own_world: World, when: str
) -> None:
    """Whether it is met while the table is filled or by a request."""
    spoilt = np.array([10**12])
    rows = make_rows(own_world.schema, 1, np.random.default_rng(0))
    rows["content"][0, 2] = np.nan
    fine = int(own_world.ids[0])
    if when != "after":
        await _put(own_world, spoilt, rows)
    async with opened(own_world) as state:
        if when == "after":
            await _put(own_world, spoilt, rows)
        both = (await ask(state, user_id=10**9, candidates=[int(spoilt[0]), fine])).json()
        alone = (await ask(state, user_id=10**9, candidates=[fine])).json()
    assert both["scores"] == [None, *alone["scores"]]
    assert both["unreadable_items"] == spoilt.tolist()


async def _put(world: World, ids: Ids, rows: ItemRows) -> None:
    store = await connect(world.store, world.schema)
    await store.put_items(ids, rows)
    await store.close()


class NotANumber(FoldedModel):
    """A model gone wrong."""

    def rank(self, *arguments: Any) -> Any:
        scores = super().rank(*arguments)
        scores[0] = np.nan
        return scores


async def test_a_score_that_is_not_a_number_never_leaves(
    own_world: World, state: ServiceState
) -> None:
    active = state.registry.active
    assert active is not None
    state.registry.activate(LoadedModel(NotANumber(own_world.bundle), active.table))
    answer = await ask(state, user_id=3, candidates=own_world.ids[:4].tolist())
    assert answer.status_code == 500
    assert answer.json()["type"] == "urn:qin:problem:model-fault"
    assert metric(state, "qin_problems_total", problem="model-fault") == 1


async def test_an_unexpected_error_reveals_nothing_and_is_logged(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(user_id: int) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(state.store, "history", broken)
    with capture_logs() as logged:
        answer = await ask(state, user_id=3, candidates=[1])
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "hunter2" not in answer.text
    assert answer.json()["type"] == "urn:qin:problem:internal"
    assert [str(line["exc_info"]) for line in logged if "exc_info" in line] == ["password=hunter2"]


async def test_a_history_of_unknown_items_is_not_a_cold_user(
    own_world: World, state: ServiceState
) -> None:
    """The score is that of an empty history; the answer says why, the metric what it counts."""
    candidates, unknown = own_world.ids[:5].tolist(), [10**6, 10**7]
    given = (await ask(state, user_id=3, candidates=candidates, history=unknown)).json()
    assert given["cold_user"] is False
    assert sorted(given["unknown_history"]) == unknown
    assert metric(state, "qin_cold_users_total") == 0
    empty = (await ask(state, user_id=3, candidates=candidates, history=[])).json()
    assert empty["cold_user"] is True
    assert empty["scores"] == given["scores"]
    assert metric(state, "qin_cold_users_total") == 1
    async with client_of(state) as client:
        said = (await client.get("/metrics")).text
    assert "# HELP qin_cold_users_total Scored requests without a stored or given history." in said


async def test_every_request_is_observed_once_failures_included(state: ServiceState) -> None:
    await ask(state, user_id=10**9, candidates=[10**6, 10**7, 10**8])
    await ask(state, user_id=-1, candidates=[1])
    async with client_of(state) as client:
        for path in ("/nothing", "/nowhere", "/v1/../x"):
            await client.get(path)
    ok = metric(state, "qin_requests_total", route="/v1/score", status="200")
    refused = metric(state, "qin_requests_total", route="/v1/score", status="422")
    unmatched = metric(state, "qin_requests_total", route="unmatched", status="404")
    assert (ok, refused, unmatched) == (1, 1, 3)
    timed = "qin_request_duration_seconds_count"
    assert metric(state, timed, route="/v1/score", outcome="refused") == 1
    assert (
        metric(state, "qin_stage_duration_seconds_count", stage="rank", outcome="ok") == 0
    )  # all unknown
    assert metric(state, "qin_stage_duration_seconds_count", stage="store", outcome="ok") == 1
    assert metric(state, "qin_items_total", kind="unknown") == 3
    assert metric(state, "qin_cold_users_total") == 1
    assert metric(state, "qin_item_table_lookups_total", result="miss") == 3
