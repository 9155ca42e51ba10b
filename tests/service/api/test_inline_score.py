"""Candidates given inline: scored to the bit as if they were stored, and every fault is named."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from feature_store import connect
from feature_store.contract import ItemRows
from feature_store.feature_values import item_row
from service.api.inline_models import MOST_INLINE
from service.api.item_text import MOST_LANGUAGES
from service.api.score_models import MOST_EXPLAINED
from service.client.client import AsyncClient, Client, Refused
from tests.service.content_encoder import content_encoder
from tests.service.mapped_world import MappedWorld, make_mapped, text_of
from tests.service.process import PATIENCE_MS, Service, serving
from tests.service.world import World, make_world
from text.runtime.encoder import TextEncoder

PATH = "/v1/score"
TAGS = {"item_tags": [3, 9], "likes_level": 2, "views_level": 1}
TEXT = {"de": "das Haus mit dem Baum", "en": "the house of the tree"}
DRAFT = {"name": "draft", "text": TEXT, "features": TAGS}
WHOLE = {"features": {**TAGS, "content": [0.5, -1.0, 0.25, 2.0, 0.0, 1.0]}}
STORED = 2**40 + 7
USER = 5


@pytest.fixture(scope="module")
def own_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("inline"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return content_encoder(tmp_path_factory.mktemp("content-encoders"))


@pytest.fixture(scope="module")
def inline_service(own_world: World, encoder: Path) -> Iterator[Service]:
    variables = {"QIN_ENCODER": str(encoder), "QIN_DEADLINE_MS": PATIENCE_MS}
    with serving(own_world.models, own_world.store, **variables) as running:
        yield running


@pytest.fixture(scope="module")
def scores(inline_service: Service) -> Iterator[httpx.Client]:
    with inline_service.client() as client:
        yield client


def asked(client: httpx.Client, candidates: Any, **more: Any) -> dict[str, Any]:
    answer = client.post(PATH, json={"user_id": USER, "candidates": candidates, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def put(world: World, item: int, row: ItemRows) -> None:
    async def write() -> None:
        store = await connect(world.store, world.schema)
        try:
            await store.put_items(np.array([item]), row)
        finally:
            await store.close()

    asyncio.run(write())


def content_of(encoder: Path, text: dict[str, str]) -> list[float]:
    """By the encoder itself, each text alone."""
    opened = TextEncoder.open(encoder)
    contents = [opened.encode([text[language]]).content for language in sorted(text)]
    mean = np.concatenate([c for c in contents if c is not None]).astype(np.float64).mean(0)
    values: list[float] = mean.astype(np.float32).tolist()
    return values


def test_an_inline_candidate_has_the_score_of_the_stored_item_to_the_bit(
    own_world: World, scores: httpx.Client, encoder: Path
) -> None:
    content = content_of(encoder, TEXT)
    put(own_world, STORED, item_row(own_world.schema, {"item_id": 0, **TAGS, "content": content}))
    put(own_world, STORED + 1, item_row(own_world.schema, {"item_id": 0, **WHOLE["features"]}))
    found = asked(scores, [STORED, DRAFT, WHOLE, STORED + 1])
    assert found["scores"][0] == found["scores"][1]
    assert found["scores"][2] == found["scores"][3]
    assert found["item_ids"] == [STORED, "draft", "candidates.2", STORED + 1]
    assert found["cold_items"] == found["item_ids"]
    assert found["unknown_items"] == found["unreadable_items"] == []


def test_it_has_the_score_of_an_item_that_was_put_with_the_same_text(
    scores: httpx.Client,
) -> None:
    scores.post("/v1/embeddings", json={"input": [TEXT["de"], "a tree", TEXT["en"]]})
    body = {"item_id": 0, **TAGS, "text": TEXT}
    written = scores.put(f"/v1/items/{STORED + 2}", json=body)
    assert written.status_code == 200, written.text
    assert len(set(asked(scores, [STORED + 2, DRAFT])["scores"])) == 1
    assert asked(scores, [STORED + 2])["scores"] == asked(scores, [DRAFT])["scores"]


def test_in_any_list_it_has_the_score_of_the_stored_item_in_its_place(
    own_world: World, scores: httpx.Client, encoder: Path
) -> None:
    content = content_of(encoder, TEXT)
    put(own_world, STORED, item_row(own_world.schema, {"item_id": 0, **TAGS, "content": content}))
    others = [{"text": {"en": f"the tree {i}"}, "features": TAGS} for i in range(MOST_INLINE - 1)]
    ids = own_world.ids[:150].tolist()
    for candidates in ([*others, DRAFT], [DRAFT, *others], [*ids, DRAFT], [*ids[:7], DRAFT, *ids]):
        stored = [STORED if each is DRAFT else each for each in candidates]
        assert asked(scores, candidates)["scores"] == asked(scores, stored)["scores"]


def test_ids_beside_them_have_their_own_scores_in_order(
    own_world: World, scores: httpx.Client
) -> None:
    ids = own_world.ids[:200].tolist()
    plain = dict(zip(ids, asked(scores, ids)["scores"], strict=True))
    mixed = [*ids[:50], DRAFT, *ids[50:120], WHOLE, *ids[120:]]
    found = asked(scores, mixed)
    assert found["item_ids"] == [*ids[:50], "draft", *ids[50:120], "candidates.121", *ids[120:]]
    pairs = zip(found["item_ids"], found["scores"], strict=True)
    assert {i: s for i, s in pairs if isinstance(i, int)} == pytest.approx(plain, abs=1e-6)


def test_top_k_names_the_best_and_explains_them(own_world: World, scores: httpx.Client) -> None:
    candidates = [*own_world.ids[:5].tolist(), DRAFT, WHOLE]
    whole = asked(scores, candidates)
    order = np.argsort(-np.array(whole["scores"]), kind="stable")[:4]
    found = asked(scores, candidates, top_k=4, explain=3)
    assert found["item_ids"] == [whole["item_ids"][i] for i in order]
    assert found["scores"] == [whole["scores"][i] for i in order]
    history = set(own_world.users[USER].tolist())
    for each in found["explanations"]:
        assert set(each["item_ids"]) <= history
    texts = asked(scores, candidates, explain=1, ids_as_strings=True)
    assert texts["item_ids"][:6] == [*map(str, candidates[:5]), "draft"]
    assert all(isinstance(i, str) for each in texts["explanations"] for i in each["item_ids"])


def test_context_of_the_request_is_given_for_each_candidate(scores: httpx.Client) -> None:
    given = {**TAGS, "likes_level": 9}
    found = asked(scores, [DRAFT, 3], context={"likes_level": [9, 9]})
    # Of as many candidates: some processors add those of a list of one in another order.
    same = asked(scores, [{**DRAFT, "features": given}, 3])
    assert found["scores"][0] == same["scores"][0]


FAULTS: dict[str, tuple[Any, str, str]] = {
    "an unknown member": ({"title": "a"}, "candidates.1.title", "not permitted"),
    "no text and no content": ({"features": TAGS}, "candidates.1.features.content", "is missing"),
    "a feature missing": (
        {"text": TEXT, "features": {"likes_level": 1, "views_level": 1}},
        "candidates.1.features.item_tags",
        "is missing",
    ),
    "text and content": (
        {"text": TEXT, "features": {**TAGS, "content": [0.0] * 6}},
        "candidates.1.features.content",
        "leave it out",
    ),
    "a feature that is none": (
        {"text": TEXT, "features": {**TAGS, "colour": 1}},
        "candidates.1.features.colour",
        "is no feature",
    ),
    "a value of another type": (
        {"text": TEXT, "features": {**TAGS, "likes_level": "high"}},
        "candidates.1.features.likes_level",
        "is not an integer",
    ),
    "a number in a vector": (
        {"features": {**TAGS, "content": [0, 0, "x", 0, 0, 0]}},
        "candidates.1.features.content.2",
        "is not a number",
    ),
    "a number too large": (
        {"features": {**TAGS, "content": [1e9] * 6}},
        "candidates.1.features.content.0",
        "is not finite within",
    ),
    "a text that is a list": ({"text": ["a"]}, "candidates.1.text", "must be an object of texts"),
    "a text that is a number": ({"text": {"de": 7}}, "candidates.1.text.de", "must be a text"),
    "a text of which nothing is to be seen": (
        {"text": {"de": "\u200b\ufeff"}, "features": TAGS},
        "candidates.1.text",
        "not enough",
    ),
    "an empty text": ({"text": {"de": ""}, "features": TAGS}, "candidates.1.text", "not enough"),
    "a vector that the map does not take": (
        {"text": TEXT, "vectors": {"image": [1.0]}, "features": TAGS},
        "candidates.1.vectors.image",
        "takes no vectors",
    ),
    "no language": ({"text": {"7": "a"}, "features": TAGS}, "candidates.1.text.7", "a language"),
    "many languages": (
        {"text": {f"a{chr(97 + i)}": "a" for i in range(MOST_LANGUAGES + 1)}, "features": TAGS},
        "candidates.1.text",
        f"at most {MOST_LANGUAGES}",
    ),
    "a text that is too long": (
        {"text": {"de": "tree " * 9000, "en": "a"}, "features": TAGS},
        "candidates.1.text.de",
        "tokens, at most 300 are read",
    ),
    "a name that another has": (
        {"name": "7", "text": TEXT, "features": TAGS},
        "candidates.1.name",
        "another candidate",
    ),
    "a name that is empty": ({"name": ""}, "candidates.1.name", "at least 1"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_a_422_that_names_the_field(scores: httpx.Client, fault: str) -> None:
    candidate, field, detail = FAULTS[fault]
    answer = scores.post(PATH, json={"user_id": USER, "candidates": [7, candidate, DRAFT]})
    assert answer.status_code == 422, answer.text
    found = answer.json()
    assert found["field"] == field
    assert detail in found["detail"]
    assert "ask to truncate" not in found["detail"]


def test_faults_of_the_whole_request_are_named_as_without_inline_candidates(
    scores: httpx.Client,
) -> None:
    def refused(body: Any, status: int = 422) -> str:
        kind = {"content": body} if isinstance(body, str) else {"json": body}
        answer = scores.post(PATH, **kind)
        assert answer.status_code == status, answer.text
        return str(answer.json()["field"])

    many = [{"text": {"en": "a"}, "features": TAGS}] * (MOST_INLINE + 1)
    assert refused({"user_id": USER, "candidates": many}) == "candidates"
    assert refused({"user_id": USER, "candidates": [DRAFT, "x"]}) == "candidates.1"
    assert refused({"user_id": USER, "candidates": [DRAFT, 1.5]}) == "candidates.1"
    assert refused({"candidates": [DRAFT]}) == "user_id"
    assert refused({"user_id": USER, "candidates": [DRAFT, DRAFT]}) == "candidates.1.name"
    assert refused({"user_id": USER, "candidates": [DRAFT] + 5000 * [1]}) == "candidates"
    short = {"user_id": USER, "candidates": [DRAFT, 1], "context": {"likes_level": [1]}}
    assert refused(short) == "context.likes_level"
    assert refused({"user_id": USER, "candidates": [DRAFT], "explain": MOST_EXPLAINED + 1}) == (
        "explain"
    )
    twice = '{"user_id": 5, "candidates": [{"name": "a", "name": "b"}]}'
    assert refused(twice) == "name"
    assert refused('{"user_id": 5, "candidates": [{"text": {"de": "\\ud800"}}]}', 400) == "body"


def test_without_an_encoder_a_text_is_refused_and_features_alone_are_scored(
    world: World, client: httpx.Client
) -> None:
    answer = client.post(PATH, json={"user_id": USER, "candidates": [7, DRAFT]})
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == "candidates.1.text"
    assert "no encoder (QIN_ENCODER)" in answer.json()["detail"]
    assert asked(client, [WHOLE])["scores"][0] is not None


def test_an_encoder_without_a_map_is_named(world: World, encoder_bundle: Path) -> None:
    variables = {"QIN_ENCODER": str(encoder_bundle)}
    with serving(world.models, world.store, **variables) as running, running.client() as client:
        answer = client.post(PATH, json={"user_id": USER, "candidates": [DRAFT]})
    assert answer.status_code == 422, answer.text
    assert "no map to an item feature" in answer.json()["detail"]


@pytest.fixture(scope="module")
def own_mapped(own_world: World, tmp_path_factory: pytest.TempPathFactory) -> MappedWorld:
    return make_mapped(own_world, tmp_path_factory.mktemp("inline-mapped"))


def test_beside_text_ids_names_are_texts_too(own_mapped: MappedWorld, encoder: Path) -> None:
    mapped = own_mapped
    user, items = text_of(USER), mapped.items[:3]
    variables = {"QIN_ENCODER": str(encoder), "QIN_DEADLINE_MS": PATIENCE_MS}
    with serving(mapped.models, mapped.store, **variables) as running, running.client() as client:
        body = {"user_id": user, "candidates": [items[0], DRAFT, items[1], WHOLE]}
        answer = client.post(PATH, json={**body, "explain": 2})
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["item_ids"] == [items[0], "draft", items[1], "candidates.3"]
        assert None not in found["scores"]
        same = {**DRAFT, "name": items[0]}
        again = client.post(PATH, json={"user_id": user, "candidates": [items[0], same]})
        assert again.json()["field"] == "candidates.1.name"


async def test_both_clients_score_inline_items(
    own_world: World, inline_service: Service, scores: httpx.Client
) -> None:
    ids = own_world.ids[:2].tolist()
    candidates: list[Any] = [ids[0], DRAFT, ids[1], 10**15 + 3]
    expected = asked(scores, candidates)
    with Client(inline_service.url, deadline_ms=9_000) as client:
        found = client.score_inline(USER, candidates)
    async with AsyncClient(inline_service.url, deadline_ms=9_000) as several:
        again = await several.score_inline(USER, candidates, model_version="active")
    for each in (found, again):
        assert each.notes["item_ids"] == expected["item_ids"]
        assert each.known.tolist() == [True, True, True, False]
        assert each.scores[:3].tolist() == pytest.approx(expected["scores"][:3])
        assert each.model_version == expected["model_version"]
    with Client(inline_service.url) as client, pytest.raises(Refused, match=r"candidates\.0\.text"):
        client.score_inline(USER, [{"text": {"de": 7}}])  # type: ignore[dict-item]
