"""Ids as decimal strings, for clients whose numbers are floats: JavaScript's hold 53 bits."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.in_process import client_of, opened
from tests.service.world import World

BEYOND_A_FLOAT = 2**53
UNKNOWN = 2**62 + 1
LISTS = ("item_ids", "unknown_items", "unreadable_items", "cold_items", "unknown_history")


def as_javascript(answer: httpx.Response) -> dict[str, Any]:
    """The body as a parser reads it that holds every number as a float."""
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = json.loads(answer.content, parse_int=float)
    return content


def large(world: World, count: int) -> list[int]:
    """Items of the store whose ids a float rounds."""
    found = [item for item in world.ids.tolist() if int(float(item)) != item]
    assert len(found) >= count
    return found[:count]


def text(ids: list[int]) -> list[str]:
    return list(map(str, ids))


def test_strings_are_scored_as_the_numbers_they_are(world: World, client: httpx.Client) -> None:
    user, items, past = 2**63 - 1, large(world, 5), world.ids[:4].tolist()
    for history in ({}, {"history": past}):
        numbers = {"user_id": user, "candidates": items, **history}
        strings = {name: text(v) if isinstance(v, list) else str(v) for name, v in numbers.items()}
        mixed = {**numbers, "candidates": [str(items[0]), *items[1:]]}
        expected = client.post("/v1/score", json=numbers).json()
        assert not any(score is None for score in expected["scores"])
        for body in (strings, mixed):
            found = client.post("/v1/score", json=body).json()
            assert {**found, "request_id": ""} == {**expected, "request_id": ""}


def test_ids_as_strings_survive_a_client_of_floats(world: World, client: httpx.Client) -> None:
    items, cold = large(world, 5), sorted(world.cold_ids)[0]
    body = {
        "user_id": str(2**63 - 1),
        "candidates": text([*items, UNKNOWN, cold]),
        "history": text([UNKNOWN + 1, *items[:2]]),
        "explain": 2,
    }
    rounded = as_javascript(client.post("/v1/score", json=body))
    assert [int(item) for item in rounded["item_ids"]][:5] != items
    found = as_javascript(client.post("/v1/score", json={**body, "ids_as_strings": True}))
    assert found["item_ids"] == body["candidates"]
    assert found["unknown_items"] == [str(UNKNOWN)]
    assert found["unknown_history"] == [str(UNKNOWN + 1)]
    assert str(cold) in found["cold_items"]
    named = [e["item_ids"] for e in found["explanations"] if e is not None]
    assert {item for ids in named for item in ids} <= set(text(items[:2]))
    assert any(named)
    assert [e and e["shares"] for e in found["explanations"]] == [
        e and e["shares"] for e in rounded["explanations"]
    ]
    assert found["scores"] == rounded["scores"]


def test_without_the_wish_ids_are_numbers(world: World, client: httpx.Client) -> None:
    items = text(large(world, 2))
    for wish in ({}, {"ids_as_strings": False}):
        found = client.post("/v1/score", json={"user_id": "3", "candidates": items, **wish}).json()
        assert text(found["item_ids"]) == items
        assert all(isinstance(item, int) for name in LISTS for item in found[name])


def test_the_best_are_given_as_strings_too(world: World, client: httpx.Client) -> None:
    body = {"user_id": 3, "candidates": world.ids[:20].tolist(), "top_k": 3}
    numbers = client.post("/v1/score", json=body).json()["item_ids"]
    found = client.post("/v1/score", json={**body, "ids_as_strings": True}).json()["item_ids"]
    assert found == text(numbers)


def test_as_many_strings_as_candidates_are_allowed(world: World, client: httpx.Client) -> None:
    items = np.resize(world.ids, 5000).tolist()
    answer = client.post("/v1/score", json={"user_id": "3", "candidates": text(items)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["item_ids"] == items


async def test_clicks_of_strings_are_of_that_user_and_item(world: World) -> None:
    user, items = BEYOND_A_FLOAT + 1, large(world, 3)
    events = [
        {"user_id": str(user), "item_id": str(items[0])},
        {"user_id": str(user), "item_ids": text(items[1:])},
    ]
    async with opened(world) as state, client_of(state) as client:
        try:
            answer = await client.post("/v1/events", json={"events": events})
            assert answer.json()["applied"] == 2, answer.text
            answer = await client.post("/v1/events", json=events[0])
            assert answer.json()["applied"] == 1, answer.text
            history = await state.store.history(user)
            assert history is not None
            assert history.tolist() == [items[0], *items[:0:-1], items[0]]
            assert await state.store.history(BEYOND_A_FLOAT) is None
        finally:
            await state.store.put_histories({user: np.zeros(0, np.int64)})


@pytest.mark.parametrize(
    ("event", "field"),
    [
        ({"user_id": "u7", "item_id": 1}, "user_id"),
        ({"user_id": "7", "item_id": "1.0"}, "item_id"),
        ({"user_id": "7", "item_ids": ["1", "-1"]}, "item_ids.1"),
        ({"user_id": "7", "item_id": str(2**63)}, "item_id"),
        ({"user_id": "7", "item_id": "1", "item_ids": ["1"]}, "item_id"),
    ],
)
def test_a_string_that_is_no_id_is_refused_in_events(
    client: httpx.Client, event: dict[str, Any], field: str
) -> None:
    alone = client.post("/v1/events", json=event)
    assert (alone.status_code, alone.json()["field"]) == (422, field)
    batch = client.post("/v1/events", json={"events": [event]})
    assert (batch.status_code, batch.json()["field"]) == (422, f"events.0.{field}")
