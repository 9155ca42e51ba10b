"""``POST /v1/events``: all of a batch, or which of it not and why."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from feature_store.contract import Append
from feature_store.errors import StoreError, StoreUnavailable
from service.api.event_models import EVENT_EXAMPLES
from service.api.events import EventsAnswer
from service.state import ServiceState
from tests.service.in_process import client_of, metric, opened
from tests.service.world import World, make_world

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def small_world(tmp_path: Path) -> World:
    return make_world(tmp_path, items=40, users=3)


@pytest.fixture
async def state(small_world: World) -> AsyncIterator[ServiceState]:
    async with opened(small_world, max_events=20) as state:
        yield state


async def send(state: ServiceState, body: Any) -> httpx.Response:
    async with client_of(state) as client:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await client.post("/v1/events", content=content, headers=JSON)


async def history(state: ServiceState, user: int) -> list[int]:
    """Newest first."""
    found = await state.store.history(user)
    return [] if found is None else found.tolist()


async def test_one_event_or_several_items_oldest_first(state: ServiceState) -> None:
    assert (await send(state, {"user_id": 100, "item_id": 1})).status_code == 200
    answer = await send(state, {"user_id": 100, "item_ids": [2, 3]})
    assert (answer.status_code, answer.json()["applied"]) == (200, 1)
    assert await history(state, 100) == [3, 2, 1]


async def test_a_batch_is_applied_in_order(state: ServiceState) -> None:
    events = [{"user_id": 100 + n % 2, "item_id": n} for n in range(6)]
    answer = await send(state, {"events": events})
    assert answer.status_code == 200
    assert answer.json()["applied"] == 6
    assert await history(state, 100) == [4, 2, 0]
    assert await history(state, 101) == [5, 3, 1]


async def test_a_key_seen_before_is_not_applied_again(state: ServiceState) -> None:
    event = {"user_id": 100, "item_id": 1, "key": "k"}
    batch = {"events": [event, {**event, "user_id": 101}, {**event, "item_id": 2}]}
    answer = await send(state, batch)
    assert (answer.status_code, answer.json()["applied"]) == (200, 2)
    assert answer.json()["repeated"] == [2]
    again = await send(state, batch)
    assert (again.status_code, again.json()["applied"]) == (200, 0)
    assert again.json()["repeated"] == [0, 1, 2]
    assert (await history(state, 100), await history(state, 101)) == ([1], [1])
    assert metric(state, "qin_events_total", result="repeated") == 4


WRONG: list[tuple[Any, str]] = [
    ({"item_id": 1}, "user_id"),
    ({"user_id": -1, "item_id": 1}, "user_id"),
    ({"user_id": 1}, "item_id"),
    ({"user_id": 1, "item_id": 2**63}, "item_id"),
    ({"user_id": 1, "item_id": 1.0}, "item_id"),
    ({"user_id": 1, "item_id": True}, "item_id"),
    ({"user_id": 1, "item_id": 1, "item_ids": [1]}, "item_id"),
    ({"user_id": 1, "item_ids": []}, "item_ids"),
    ({"user_id": 1, "item_ids": [1, -1]}, "item_ids.1"),
    ({"user_id": 1, "item_ids": [1] * 13}, "item_ids"),
    ({"user_id": 1, "item_id": 1, "key": ""}, "key"),
    ({"user_id": 1, "item_id": 1, "key": "a b"}, "key"),
    ({"user_id": 1, "item_id": 1, "key": "k" * 129}, "key"),
    ({"user_id": 1, "item_id": 1, "when": 3}, "when"),
]


@pytest.mark.parametrize(("event", "field"), WRONG)
async def test_what_is_wrong_names_its_field_and_nothing_is_stored(
    state: ServiceState, event: Any, field: str
) -> None:
    answer = await send(state, event)
    assert answer.status_code == 422
    assert answer.json()["field"] == field
    answer = await send(state, {"events": [event]})
    assert answer.status_code == 422
    assert answer.json()["field"] == f"events.0.{field}"
    assert metric(state, "qin_events_total", result="rejected") == 2
    assert metric(state, "qin_store_duration_seconds_count", operation="append") == 0


async def test_each_rejected_event_of_a_batch_has_its_reason_and_the_others_are_taken(
    state: ServiceState,
) -> None:
    right = {"user_id": 100, "item_id": 5}
    wrong = [event for event, _ in WRONG]
    answer = await send(state, {"events": [right, *wrong, 17, right]})
    assert answer.status_code == 207
    EventsAnswer.model_validate(answer.json())
    assert answer.json()["applied"] == 2
    rejected = answer.json()["rejected"]
    assert [r["index"] for r in rejected] == list(range(1, len(wrong) + 2))
    fields = [f"events.{index}.{field}" for index, (_, field) in enumerate(WRONG, 1)]
    assert [r["field"] for r in rejected] == [*fields, f"events.{len(wrong) + 1}"]
    assert all(r["detail"] and r["problem"] == "invalid-field" for r in rejected)
    assert await history(state, 100) == [5, 5]


BAD_BODIES: list[tuple[Any, int, str]] = [
    (b"", 400, "body"),
    (b'{"user_id": 1, "item_id": ', 400, "body"),
    (b"[]", 422, "body"),
    ({"events": []}, 422, "events"),
    ({"events": [{"user_id": 1, "item_id": 1}] * 21}, 422, "events"),
    ({"events": {"user_id": 1}}, 422, "events"),
    ({"events": [], "user_id": 1}, 422, "user_id"),
    (b'{"user_id": 1, "item_id": 1, "item_id": 2}', 422, "item_id"),
    (b'{"events": [{"user_id": 1, "user_id": 2, "item_id": 2}]}', 422, "user_id"),
    (b'{"user_id": 1, "item_id": NaN}', 422, "item_id"),
    (b"{" + b",".join(b'"%d":1' % n for n in range(9000)) + b"}", 422, "body"),
]


@pytest.mark.parametrize(("body", "status", "field"), BAD_BODIES)
async def test_a_body_that_is_no_batch_is_refused_whole(
    state: ServiceState, body: Any, status: int, field: str
) -> None:
    answer = await send(state, body)
    assert answer.status_code == status, answer.text
    assert answer.json()["field"] == field
    assert metric(state, "qin_events_total", result="applied") == 0


async def test_events_that_one_server_of_several_did_not_take_are_named(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def half(appends: Sequence[Append]) -> list[bool | StoreError]:
        return [a.user_id < 101 or StoreUnavailable("10.0.0.7 refused") for a in appends]

    monkeypatch.setattr(state.store, "append_all", half)
    events = [{"user_id": user, "item_id": 1} for user in (100, 101, 100)]
    answer = await send(state, {"events": events})
    assert answer.status_code == 207
    [rejected] = answer.json()["rejected"]
    assert (rejected["index"], rejected["problem"]) == (1, "store-unavailable")
    assert "10.0.0.7" not in answer.text

    answer = await send(state, {"events": events[1:2]})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "1"


@pytest.mark.parametrize("name", EVENT_EXAMPLES)
async def test_every_documented_example_is_taken(state: ServiceState, name: str) -> None:
    assert (await send(state, EVENT_EXAMPLES[name]["value"])).status_code == 200
