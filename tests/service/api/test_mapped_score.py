"""``POST /v1/score`` where the store's ids are texts: scores are those of the numeric store with
the same items, and answers give the request's own texts."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import pytest

from feature_store.contract import Ids
from feature_store.errors import StoreUnavailable
from service.api.ids import NO_TEXT
from service.models.canary import Canary, seed_of
from tests.service.in_process import ask, client_of, metric, opened
from tests.service.live import until
from tests.service.mapped_world import MappedWorld, text_of
from tests.service.process import serving
from tests.service.world import World

USER = 11
LONGEST = "🎬" * 128


def scored(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def textual(given: int | list[int]) -> str | list[str]:
    return list(map(text_of, given)) if isinstance(given, list) else text_of(given)


def as_texts(numeric: dict[str, Any]) -> dict[str, Any]:
    """The answer of the numeric service, its ids as their texts."""
    lists = ("item_ids", "unknown_items", "unreadable_items", "cold_items", "unknown_history")
    found = {**numeric, "request_id": ""}
    found |= {name: list(map(text_of, numeric[name])) for name in lists}
    if "explanations" in numeric:
        found["explanations"] = [
            e and {**e, "item_ids": list(map(text_of, e["item_ids"]))}
            for e in numeric["explanations"]
        ]
    return found


@pytest.mark.parametrize("options", [{}, {"top_k": 7}, {"ids_as_strings": True}])
def test_scores_are_those_of_the_same_items_by_number(
    world: World, client: httpx.Client, texts: httpx.Client, options: dict[str, Any]
) -> None:
    items, past = world.ids.tolist(), world.ids[:9].tolist()
    for history in ({}, {"history": [*past, 10**12]}):
        numbers = {"user_id": USER, "candidates": [*items, 10**12 + 1, items[0]], **history}
        expected = as_texts(scored(client, **numbers | options | {"ids_as_strings": False}))
        asked = {name: textual(value) for name, value in numbers.items()}
        found = scored(texts, **asked, **options)
        assert {**found, "request_id": ""} == expected
        assert found["cold_items"]
        assert found["unknown_items"] or options.get("top_k")


def test_unknown_texts_are_unknown_items_and_cold_users(texts: httpx.Client) -> None:
    never = ["never seen", LONGEST, " ", "0", "null", '"\\', "\x00", "a\nb", "１７"]
    found = scored(texts, user_id=LONGEST, candidates=never, history=never[:3])
    assert (found["item_ids"], found["unknown_items"]) == (never, never)
    assert found["unknown_history"] == never[2::-1]
    assert scored(texts, user_id="no such user", candidates=never)["cold_user"] is True


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"user_id": 7, "candidates": ["a"]}, "user_id"),
        ({"user_id": "7", "candidates": ["a", 7]}, "candidates.1"),
        ({"user_id": "7", "candidates": ["a"], "history": ["a", None]}, "history.1"),
        ({"user_id": "", "candidates": ["a"]}, "user_id"),
        ({"user_id": "u", "candidates": ["a", ""]}, "candidates.1"),
        ({"user_id": "u", "candidates": ["a" * 129]}, "candidates.0"),
        ({"user_id": "u", "candidates": [["a"]]}, "candidates.0"),
        ({"user_id": True, "candidates": ["a"]}, "user_id"),
    ],
)
def test_what_is_no_text_is_refused_and_the_kind_of_the_ids_said(
    texts: httpx.Client, body: dict[str, Any], field: str
) -> None:
    answer = texts.post("/v1/score", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert NO_TEXT in answer.json()["detail"]


@pytest.mark.parametrize("text", [rb'"\ud800"', b'"\xff"', rb'"\x41"'])
def test_what_is_no_unicode_text_is_no_json(texts: httpx.Client, text: bytes) -> None:
    answer = texts.post("/v1/score", content=b'{"user_id":"u","candidates":[%b]}' % text)
    assert (answer.status_code, answer.json()["field"]) == (400, "body")


def test_a_name_given_twice_is_refused(texts: httpx.Client) -> None:
    for candidates in ('"a"', r'"\"a\":\"", "a"'):
        body = f'{{"user_id": "u", "candidates": [{candidates}], "user_id": "v"}}'
        answer = texts.post("/v1/score", content=body)
        assert (answer.status_code, answer.json()["field"]) == (422, "user_id")


def test_the_numeric_store_refuses_texts_as_before(client: httpx.Client) -> None:
    answer = client.post("/v1/score", json={"user_id": "u-7", "candidates": [1]})
    assert (answer.status_code, answer.json()["field"]) == (422, "user_id")


def test_the_kind_of_the_ids_is_shown(client: httpx.Client, texts: httpx.Client) -> None:
    assert client.get("/readyz").json()["ids"] == "numeric"
    assert texts.get("/readyz").json()["ids"] == "mapped"


@pytest.mark.parametrize("history", [None, 4])
def test_explanations_name_history_items_by_their_texts(
    world: World, client: httpx.Client, texts: httpx.Client, history: int | None
) -> None:
    items = world.ids[:40].tolist()
    given = {} if history is None else {"history": world.ids[50 : 50 + history].tolist()}
    expected = scored(client, user_id=USER, candidates=items, explain=5, **given)
    asked = {name: list(map(text_of, past)) for name, past in given.items()}
    mine = list(map(text_of, items))
    found = scored(texts, user_id=text_of(USER), candidates=mine, explain=5, **asked)
    for one, theirs in zip(found["explanations"], as_texts(expected)["explanations"], strict=True):
        assert (one is None) == (theirs is None)
        if one is not None:  # the shares are sums in another order
            assert one["item_ids"] == theirs["item_ids"]
            assert one["shares"] == pytest.approx(theirs["shares"], rel=1e-5)
    assert any(e and e["item_ids"] for e in found["explanations"])


async def test_stored_history_is_named_in_one_round_trip_and_cached(mapped: MappedWorld) -> None:
    async with opened(mapped.numeric, store=mapped.store) as state:
        asked = list[int]()
        item_texts = state.store.item_texts

        async def counting(ids: Ids) -> list[str | None]:
            asked.append(len(ids))
            return await item_texts(ids)

        state.store.item_texts = counting  # type: ignore[method-assign]
        body = {"user_id": text_of(USER), "candidates": mapped.items[:5]}
        await ask(state, **body)
        assert asked == []  # there was nothing to name
        gone = mapped.history(USER)[2]
        async with state.refresher.writing(mapped.numbered([gone])):
            await state.store.delete_items(mapped.numbered([gone]))
        try:
            for _ in range(3):
                assert (await ask(state, **body)).json()["unknown_history"] == [gone]
            assert asked == [1]
            state.item_texts._cached.clear()
            for _ in range(3):
                answer = (await ask(state, **body, explain=3)).json()
                assert answer["unknown_history"] == [gone]
                assert any(e["item_ids"] for e in answer["explanations"] if e)
            assert len(asked) == 2
            assert metric(state, "qin_store_duration_seconds_count", operation="item_texts") == 2
        finally:
            row = mapped.numeric.rows[mapped.items.index(gone)]
            await state.store.put_items(mapped.numbered([gone]), row[np.newaxis])


@pytest.mark.parametrize("failing", [False, True])
async def test_a_number_without_a_text_is_left_out_and_counted(
    mapped: MappedWorld, failing: bool
) -> None:
    async with opened(mapped.numeric, store=mapped.store) as state:
        body = {"user_id": text_of(USER), "candidates": mapped.items[:9]}
        full = (await ask(state, **body, explain=12)).json()["explanations"]
        state.item_texts._cached.clear()
        lost = mapped.history(USER)[0]
        item_texts = state.store.item_texts

        async def without(ids: Ids) -> list[str | None]:
            if failing:
                raise StoreUnavailable("no answer")
            return [None if text == lost else text for text in await item_texts(ids)]

        state.store.item_texts = without  # type: ignore[method-assign]
        answer = await ask(state, **body, explain=12)
        assert answer.status_code == 200, answer.text
        for whole, part in zip(full, answer.json()["explanations"], strict=True):
            pairs = zip(whole["item_ids"], whole["shares"], strict=True) if whole else ()
            kept = [] if failing else [pair for pair in pairs if pair[0] != lost]
            if whole:
                assert list(zip(part["item_ids"], part["shares"], strict=True)) == kept
        count = len(set(mapped.history(USER)))
        assert metric(state, "qin_items_unnamed_total") == (count if failing else 1)


@pytest.mark.parametrize("escaped", [False, True])
def test_as_many_of_the_longest_texts_as_candidates_are_taken(
    mapped: MappedWorld, escaped: bool
) -> None:
    characters = '"\\,:{[' if not escaped else "é"
    longest = [f"{n}".ljust(128, characters[n % len(characters)]) for n in range(5000)]
    body = {"user_id": longest[0], "candidates": longest, "history": longest[:12]}
    written = json.dumps(body).encode()
    limit = f"{2**23}"
    with (
        serving(mapped.models, mapped.store, QIN_MAX_BODY_BYTES=limit) as service,
        service.client() as client,
    ):
        answer = client.post("/v1/score", content=written)
        assert answer.status_code == 200, answer.text
        assert answer.json()["item_ids"] == longest


async def test_the_document_describes_ids_as_texts(mapped: MappedWorld) -> None:
    async with opened(mapped.numeric, store=mapped.store) as state, client_of(state) as client:
        document = (await client.get("/openapi.json")).json()
    request = document["paths"]["/v1/score"]["post"]["requestBody"]["content"]["application/json"]
    text = {"type": "string", "minLength": 1, "maxLength": 128}
    properties = request["schema"]["properties"]
    assert text.items() <= properties["user_id"].items()
    assert properties["candidates"]["items"]["anyOf"][0] == text
    assert properties["history"]["anyOf"][0]["items"] == text
    schemas = document["components"]["schemas"]
    answer = schemas["ScoreAnswer"]["properties"]
    lists = ("item_ids", "unknown_items", "unreadable_items", "cold_items", "unknown_history")
    assert all(answer[name]["items"] == text for name in lists)
    assert schemas["Explanation"]["properties"]["item_ids"]["items"] == text


async def test_a_shadow_and_a_canary_score_the_same_users(mapped: MappedWorld) -> None:
    async with opened(mapped.numeric, store=mapped.store) as state:
        active = state.registry.active
        assert active is not None
        state.manager.shadow.begin(active, 1.0)
        state.registry.canary = Canary(active, 1.0, seed_of("small-1"))
        await ask(state, user_id=text_of(USER), candidates=mapped.items[:20], explain=2)
        await until(lambda: metric(state, "qin_shadow_requests_total", outcome="scored"))
        seen = state.manager.shadow.as_json()
        assert seen is not None
        assert (seen["failed"], seen["worst_abs_delta_p"]) == (0, 0.0)
        assert metric(state, "qin_version_duration_seconds_count", role="canary", outcome="ok") == 1


def test_the_log_has_the_callers_text_or_its_digest(mapped: MappedWorld) -> None:
    for chosen, shown in (("plain", True), ("hashed", False)):
        variables = {"QIN_LOG_USERS": chosen, "QIN_LOG_SAMPLE": "1", "QIN_LOG_FORMAT": "json"}
        with serving(mapped.models, mapped.store, **variables) as service:
            with service.client() as client:
                for _ in range(2):
                    scored(client, user_id="a-user-of-ours", candidates=["a"])
            lines = [json.loads(line) for line in service.log.read_text().splitlines()]
        users = {line["user"] for line in lines if line["event"] == "score"}
        assert len(users) == 1
        assert (users == {"a-user-of-ours"}) is shown
        assert ("a-user-of-ours" in json.dumps(lines)) is shown
