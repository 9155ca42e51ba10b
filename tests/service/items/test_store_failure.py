"""While the store fails: answers from what there is, or 503; writes are never pretended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from feature_store.errors import (
    ContentMismatch,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreMismatch,
    StoreRefused,
    StoreUnavailable,
)
from service.state import ServiceState
from tests.service.in_process import ask, client_of, metric, opened
from tests.service.parity import TOLERANCE
from tests.service.world import World, make_world


@pytest.fixture(scope="module")
def calm_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Nothing in this file writes to it."""
    return make_world(tmp_path_factory.mktemp("calm"), items=60, users=5)


@pytest.fixture
async def state(calm_world: World) -> AsyncIterator[ServiceState]:
    async with opened(calm_world) as state:
        yield state


def lose(state: ServiceState, monkeypatch: pytest.MonkeyPatch, error: StoreError) -> None:
    """From now on the store raises this whatever it is asked."""

    async def lost(*arguments: Any, **named: Any) -> Any:
        raise error

    for name in ("history", "items", "changes", "append_all", "put_items", "delete_items"):
        monkeypatch.setattr(state.store, name, lost)
    monkeypatch.setattr(state.store, "patch_item", lost)


UNREACHED = StoreUnavailable("10.0.0.7:6379 refused")
ERRORS = [UNREACHED, StoreRefused("WRONGTYPE"), StoreCorrupt("history of user 3: damaged")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_without_its_history_a_user_is_answered_as_one_with_an_empty_one(
    calm_world: World, state: ServiceState, monkeypatch: pytest.MonkeyPatch, error: StoreError
) -> None:
    lose(state, monkeypatch, error)
    candidates = calm_world.ids[:9]
    response = await ask(state, user_id=3, candidates=candidates.tolist())
    answer = response.json()
    assert response.status_code == 200
    expected = calm_world.answer(np.empty(0, np.int64), candidates)
    assert answer["scores"] == pytest.approx(expected, abs=TOLERANCE)
    assert answer["degraded"] == ["history"]
    assert not answer["cold_user"]  # nobody knows
    assert metric(state, "qin_degraded_total", what="history") == 1
    kind = type(error).__name__
    assert metric(state, "qin_store_errors_total", operation="history", error=kind) == 1


async def test_readyz_and_a_metric_say_that_the_store_is_not_reached(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(state) as client:
        before = (await client.get("/readyz")).json()
        assert (before["store"], before["degraded"]) == ("reachable", [])
        assert metric(state, "qin_store_reachable") == 1
        with monkeypatch.context() as broken:
            lose(state, broken, UNREACHED)
            await ask(state, user_id=3, candidates=[1])
            during = await client.get("/readyz")
            assert during.status_code == 200  # it does answer
            assert during.json()["store"] == "unreachable"
            assert during.json()["degraded"] == ["history"]
            assert metric(state, "qin_store_reachable") == 0
        await ask(state, user_id=3, candidates=[1])
        assert (await client.get("/readyz")).json()["degraded"] == []


async def test_items_that_cannot_be_asked_for_are_said_to_be_unreadable(
    calm_world: World, state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(state, monkeypatch, UNREACHED)
    known, unknown = int(calm_world.ids[0]), 10**12
    answer = (await ask(state, user_id=3, candidates=[unknown, known])).json()
    assert answer["scores"][0] is None
    assert answer["scores"][1] is not None
    assert answer["unreadable_items"] == [unknown]
    assert answer["unknown_items"] == []
    assert answer["degraded"] == ["items", "history"]

    nothing = await ask(state, user_id=3, candidates=[unknown], history=[])
    assert nothing.status_code == 503  # there is nothing to answer from
    assert nothing.json()["type"] == "urn:qin:problem:store-unavailable"


async def test_the_store_coming_back_is_noticed_by_items_that_were_missed(
    calm_world: World, state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, unknown = int(calm_world.ids[0]), 10**12
    with monkeypatch.context() as broken:
        lose(state, broken, UNREACHED)
        await ask(state, user_id=3, candidates=[unknown, known])
    answer = (await ask(state, user_id=3, candidates=[unknown, known])).json()
    assert answer["unknown_items"] == [unknown]
    assert answer["degraded"] == []


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_a_service_told_to_fail_answers_503_and_reveals_nothing(
    calm_world: World, monkeypatch: pytest.MonkeyPatch, error: StoreError
) -> None:
    async with opened(calm_world, on_store_failure="fail") as state, client_of(state) as client:
        lose(state, monkeypatch, error)
        answer = await ask(state, user_id=3, candidates=[int(calm_world.ids[0])])
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:qin:problem:store-unavailable"
        assert answer.headers["Retry-After"] == "1"
        assert str(error) not in answer.text
        inline = await ask(state, user_id=3, candidates=[int(calm_world.ids[0])], history=[])
        assert inline.status_code == 200  # the store was not needed
        if error is UNREACHED:
            ready = await client.get("/readyz")
            assert ready.status_code == 503
            assert ready.json()["waiting_for"] == "the feature store to answer"


@pytest.mark.parametrize("error", ERRORS[:2], ids=lambda error: type(error).__name__)
async def test_writes_are_not_pretended(
    calm_world: World, state: ServiceState, monkeypatch: pytest.MonkeyPatch, error: StoreError
) -> None:
    lose(state, monkeypatch, error)
    item = f"/v1/items/{calm_world.ids[0]}"
    async with client_of(state) as client:
        for answer in (
            await client.post("/v1/events", json={"user_id": 1, "item_id": 2}),
            await client.patch(item, json={"likes_level": 3}),
            await client.delete(item),
        ):
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
            assert answer.json()["type"] == "urn:qin:problem:store-unavailable"
            assert str(error) not in answer.text


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StoreFull("/srv/store: the disk is full"), "the feature store is full"),
        (StoreUnavailable("late", unknown=True), "may have been written"),
        (StoreUnavailable("not sent"), "did not answer; try again"),
    ],
)
async def test_a_refused_write_says_what_became_of_it(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch, error: StoreError, said: str
) -> None:
    """Whether the store failed as a whole or for one event; nothing internal is repeated."""
    lose(state, monkeypatch, error)
    event = {"user_id": 3, "item_id": 4}
    async with client_of(state) as client:
        as_a_whole = await client.post("/v1/events", json=event)

        async def each(appends: Any) -> list[StoreError]:
            return [error for _ in appends]

        monkeypatch.setattr(state.store, "append_all", each)
        one_by_one = await client.post("/v1/events", json=event)
    for answer in (as_a_whole, one_by_one):
        assert answer.status_code == 503
        assert said in answer.json()["detail"]
        assert "/srv" not in answer.text


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ContentMismatch("has contents of a, not of b"), 409, "contents of another item feature"),
        (StoreMismatch("written in store format 99"), 503, "did not answer"),
    ],
)
async def test_a_store_of_another_schema_is_no_conflict_of_contents(
    calm_world: World,
    state: ServiceState,
    monkeypatch: pytest.MonkeyPatch,
    error: StoreError,
    status: int,
    said: str,
) -> None:
    async with client_of(state) as client:
        path = f"/v1/items/{calm_world.ids[0]}"
        values = (await client.get(path)).json()
        lose(state, monkeypatch, error)
        for answer in (
            await client.put(path, json=values),
            await client.patch(path, json={"likes_level": 1}),
        ):
            assert answer.status_code == status, answer.text
            assert said in answer.json()["detail"]


async def test_events_that_a_full_store_refuses_one_by_one_are_no_recovery_in_the_log(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logged once a second, not twice for each request."""

    async def each(appends: Any) -> list[StoreError]:
        return [StoreFull("maxmemory") for _ in appends]

    event = {"user_id": 3, "item_id": 4}
    async with client_of(state) as client:
        with capture_logs() as log, monkeypatch.context() as full:
            full.setattr(state.store, "append_all", each)
            for _ in range(5):
                assert (await client.post("/v1/events", json=event)).status_code == 503
        assert [line["event"] for line in log if "store" in line["event"]] == ["store failed"]
        with capture_logs() as log:
            await client.post("/v1/events", json=event)
        assert [line["event"] for line in log] == ["store answers again"]


async def test_a_damaged_record_is_no_failure_from_which_the_next_user_recovers(
    calm_world: World, state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = state.store.history

    async def history(user_id: int) -> Any:
        if user_id == 3:
            raise StoreCorrupt("history of user 3: damaged")
        return await real(user_id)

    monkeypatch.setattr(state.store, "history", history)
    with capture_logs() as log:
        for user in (3, 4, 3, 4, 3, 4):
            await ask(state, user_id=user, candidates=[int(calm_world.ids[0])])
    assert [line["event"] for line in log if "store" in line["event"]] == ["store failed"]
    assert metric(state, "qin_store_errors_total", operation="history", error="StoreCorrupt") == 3


async def test_the_first_write_that_a_full_store_refuses_is_an_increase(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the alert asks: a series that appears with its first value shows none."""

    def refused() -> float | None:
        labels = {"operation": "append", "error": "StoreFull"}
        return state.metrics.registry.get_sample_value("qin_store_errors_total", labels)

    assert refused() == 0
    lose(state, monkeypatch, StoreFull("maxmemory"))
    async with client_of(state) as client:
        await client.post("/v1/events", json={"user_id": 3, "item_id": 4})
    assert refused() == 1
