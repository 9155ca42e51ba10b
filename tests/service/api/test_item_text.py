"""Items with texts in place of a vector: encoded, stored with their digest, scored at once."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feature_store import connect
from feature_store.schema import FeatureSchema
from service.api.item_text import MOST_LANGUAGES
from tests.service.process import PATIENCE_MS, Service, serving, start, wait_ready
from tests.service.world import World, make_world, on_another_store
from tests.text import small
from text.content.fit import fit
from text.content.items import ItemTexts
from text.export.build import build
from text.runtime.encoder import TextEncoder

FEATURE, SIZE, IMAGE = "content", 6, 4
NEW = 10**12
GERMAN, ENGLISH = "das Haus mit dem Baum", "the house of the tree"
IMAGE_VECTOR = [0.5, -1.0, 2.0, 0.25]
REST: dict[str, Any] = {"item_id": 7, "item_tags": [3, 4], "likes_level": 2, "views_level": 6}


@pytest.fixture(scope="session")
def image_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder with a map from texts, and an image's vector, to the small world's feature."""
    folder = tmp_path_factory.mktemp("content-encoder")
    checkpoint = small.checkpoint(folder / "checkpoint")
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(small.WORDS, random.integers(2, 9))) for _ in range(200)]
    image = random.normal(size=(200, IMAGE))
    seen = random.random(200) < 0.7
    columns = {
        "text_en": pa.array(texts),
        "image": pa.array([v if s else None for v, s in zip(image.tolist(), seen, strict=True)]),
        FEATURE: pa.array(random.normal(size=(200, SIZE)).tolist()),
    }
    pq.write_table(pa.table(columns), folder / "items.parquet")
    plain = TextEncoder(build(checkpoint, folder, version="plain", longest=small.LONGEST))
    opened = ItemTexts(folder / "items.parquet", (), ["image", FEATURE])
    (folder / "map.npz").write_bytes(fit(plain, opened, FEATURE, into=FEATURE).encoded())
    return build(
        checkpoint, folder, version="words-2", content=folder / "map.npz", longest=small.LONGEST
    ).path


@pytest.fixture(scope="session")
def encoder(image_encoder: Path) -> TextEncoder:
    return TextEncoder.open(image_encoder)


@pytest.fixture(scope="module")
def own_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"), items=40, users=3)


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def texts_service(
    own_world: World, image_encoder: Path, request: pytest.FixtureRequest
) -> Iterator[Service]:
    world = own_world
    if request.param == "redis":
        server = request.getfixturevalue("redis")
        world = on_another_store(world, f"redis://127.0.0.1:{server.port}?prefix=texts")
    variables = {
        "QIN_ENCODER": str(image_encoder),
        "QIN_DEADLINE_MS": PATIENCE_MS,
        "QIN_STORE_TIMEOUT_MS": PATIENCE_MS,
        "QIN_STORE_WRITE_TIMEOUT_MS": PATIENCE_MS,
    }
    with serving(world.models, world.store, **variables) as running:
        yield running


@pytest.fixture
def client(texts_service: Service) -> Iterator[httpx.Client]:
    with texts_service.client() as client:
        yield client


def put(client: httpx.Client, values: dict[str, Any], item: int = NEW) -> httpx.Response:
    return client.put(f"/v1/items/{item}", json=values)


def expected(encoder: TextEncoder, *texts: str, image: list[float] | None = None) -> Any:
    """The content of an item with these texts."""
    assert encoder.content_map is not None
    vectors = {"text": encoder.encode(list(texts)).vectors.astype(np.float64).mean(0)[None]}
    if image is not None:
        vectors["image"] = np.array([image])
    return encoder.content_map.content(vectors)[0]


def near(found: Any, content: Any) -> bool:
    """Within what float16 keeps."""
    return bool(np.allclose(found, content, rtol=2e-3, atol=2e-3))


def score(client: httpx.Client, item: int) -> dict[str, Any]:
    answer = client.post("/v1/score", json={"user_id": 1, "candidates": [item], "history": []})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_german_item_is_scored_as_soon_as_its_put_is_answered(
    client: httpx.Client, encoder: TextEncoder
) -> None:
    assert score(client, NEW + 1)["unknown_items"] == [NEW + 1]
    answer = put(client, {**REST, "text": {"de": GERMAN}}, NEW + 1)
    found = score(client, NEW + 1)
    assert answer.status_code == 200, answer.text
    assert found["unknown_items"] == []
    written = answer.json()
    content = written["features"][FEATURE]
    assert near(content, expected(encoder, GERMAN))
    assert written["item_id"] == NEW + 1
    assert written["content"] == {
        "feature": FEATURE,
        "digest": encoder.content_digest,
        "languages": ["de"],
        "tokens": int(encoder.encode([GERMAN]).tokens.sum()),
        "truncated": [],
    }
    assert client.get(f"/v1/items/{NEW + 1}").json() == written["features"]
    # The same score as of the same numbers, given.
    assert put(client, {**REST, FEATURE: content}, NEW + 2).status_code == 204
    assert score(client, NEW + 2)["scores"] == found["scores"]


def test_languages_are_averaged_and_blank_ones_left_out(
    client: httpx.Client, encoder: TextEncoder
) -> None:
    both = put(client, {**REST, "text": {"en": ENGLISH, "de": GERMAN}}).json()
    assert near(both["features"][FEATURE], expected(encoder, GERMAN, ENGLISH))
    assert both["content"]["languages"] == ["de", "en"]
    one = put(client, {**REST, "text": {"en": ENGLISH, "de": " \n", "es": None, "pt": ""}}).json()
    assert near(one["features"][FEATURE], expected(encoder, ENGLISH))
    assert one["content"]["languages"] == ["en"]


def test_an_images_vector_joins_the_text(client: httpx.Client, encoder: TextEncoder) -> None:
    values = {**REST, "text": {"de": GERMAN}, "vectors": {"image": IMAGE_VECTOR}}
    found = put(client, values).json()["features"][FEATURE]
    assert near(found, expected(encoder, GERMAN, image=IMAGE_VECTOR))
    assert not near(found, expected(encoder, GERMAN))
    without = put(client, {**REST, "text": {"de": GERMAN}, "vectors": {"image": None}}).json()
    assert near(without["features"][FEATURE], expected(encoder, GERMAN))


def test_an_item_may_have_its_image_alone(client: httpx.Client, encoder: TextEncoder) -> None:
    assert encoder.content_map is not None
    found = put(client, {**REST, "vectors": {"image": IMAGE_VECTOR}}).json()
    image = encoder.content_map.content({"image": np.array([IMAGE_VECTOR])})[0]
    assert near(found["features"][FEATURE], image)
    assert found["content"]["languages"] == []


def test_a_patch_changes_the_content_alone(client: httpx.Client, encoder: TextEncoder) -> None:
    put(client, {**REST, "text": {"de": GERMAN}})
    before = score(client, NEW)["scores"]
    answer = client.patch(f"/v1/items/{NEW}", json={"text": {"en": ENGLISH}, "likes_level": 3})
    assert answer.status_code == 200, answer.text
    found = answer.json()["features"]
    assert near(found[FEATURE], expected(encoder, ENGLISH))
    assert {name: found[name] for name in REST} == REST | {"likes_level": 3}
    assert score(client, NEW)["scores"] != before
    missing = client.patch(f"/v1/items/{NEW + 99}", json={"text": {"en": ENGLISH}})
    assert missing.status_code == 404


def test_a_text_that_is_too_long_is_cut_and_named(client: httpx.Client) -> None:
    long = "tree " * 9000
    found = put(client, {**REST, "text": {"de": GERMAN, "en": long}}).json()
    assert found["content"]["truncated"] == ["en"]


def test_texts_may_hold_commas_digits_and_quotes(client: httpx.Client) -> None:
    for text in ("1,2,3," * 2000, "9" * 40_000, '"\\' * 3000, "[]{}" * 3000):
        answer = put(client, {**REST, "text": {"de": text}})
        assert answer.status_code == 200, answer.text[:200]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"text": GERMAN}, "text"),
    ({"text": [GERMAN]}, "text"),
    ({"text": {}}, "text"),
    ({"text": {"de": "", "en": " "}}, "text"),
    ({"text": {"de": 3}}, "text.de"),
    ({"text": {"de": ["Haus"]}}, "text.de"),
    ({"text": {"deutsch!": GERMAN}}, "text.deutsch!"),
    ({"text": {f"x{i}": GERMAN for i in range(MOST_LANGUAGES + 1)}}, "text"),
    ({"text": {"de": GERMAN}, FEATURE: [0.0] * SIZE}, FEATURE),
    ({"text": {"de": GERMAN}, "vectors": [1]}, "vectors"),
    ({"text": {"de": GERMAN}, "vectors": {"sound": [1.0]}}, "vectors.sound"),
    ({"text": {"de": GERMAN}, "vectors": {"image": [1.0]}}, "vectors.image"),
    ({"text": {"de": GERMAN}, "vectors": {"image": [1.0, 2.0, "3", 4.0]}}, "vectors.image.2"),
    ({"text": {"de": GERMAN}, "vectors": {"image": [1.0, True, 3.0, 4.0]}}, "vectors.image.1"),
    ({"text": {"de": GERMAN}, "vectors": {"image": [1.0, 2.0, 3.0, 1e39]}}, "vectors.image.3"),
    ({"vectors": {}}, "vectors"),
    ({"text": {"de": GERMAN}, "vectors": {"image": [1e30] * 4}}, "vectors"),  # beyond float16
    ({"text": {"de": "\u200b\ufeff", "en": "\x00"}}, "text"),  # nothing is to be seen
]


@pytest.mark.parametrize(("given", "field"), WRONG)
def test_what_is_wrong_with_texts_is_named(
    client: httpx.Client, given: dict[str, Any], field: str
) -> None:
    item = NEW + 50
    for answer in (
        put(client, {**REST, **given}, item),
        client.patch(f"/v1/items/{item}", json=given),
    ):
        assert answer.status_code == 422, answer.text
        assert answer.json()["field"] == field
    assert client.get(f"/v1/items/{item}").status_code == 404


def test_a_feature_that_is_missing_is_named_before_texts_are_encoded(client: httpx.Client) -> None:
    answer = put(client, {"item_id": 7, "item_tags": [], "text": {"de": GERMAN}})
    assert (answer.status_code, answer.json()["field"]) == (422, "likes_level")


def test_a_lone_surrogate_is_a_400(client: httpx.Client) -> None:
    body = json.dumps({**REST, "text": {"de": "\ud800"}})
    answer = client.put(
        f"/v1/items/{NEW}", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400


def test_the_deadline_counts(client: httpx.Client) -> None:
    body = {**REST, "text": {"de": "Baum " * 8000}}
    headers = {"X-Deadline-Ms": "1"}
    answer = client.put(f"/v1/items/{NEW + 60}", json=body, headers=headers)
    assert answer.status_code in (429, 504)
    assert client.get(f"/v1/items/{NEW + 60}").status_code == 404


def test_the_openapi_document_has_texts(client: httpx.Client) -> None:
    path = client.get("/openapi.json").json()["paths"]["/v1/items/{item_id}"]
    body = path["put"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"text", "vectors"} <= body["properties"].keys()
    assert FEATURE not in body["required"]
    assert "200" in path["put"]["responses"]


def test_without_an_encoder_the_field_is_named(own_world: World, service: Service) -> None:
    with service.client() as client:
        for name in ("text", "vectors"):
            answer = put(client, {**REST, name: {"de": GERMAN}})
            assert (answer.status_code, answer.json()["field"]) == (422, name)
            assert "QIN_ENCODER" in answer.json()["detail"]


def test_an_encoder_without_a_map_is_named(own_world: World, encoder_bundle: Path) -> None:
    variables = {"QIN_ENCODER": str(encoder_bundle), "QIN_DEADLINE_MS": PATIENCE_MS}
    with (
        serving(own_world.models, own_world.store, **variables) as running,
        running.client() as client,
    ):
        answer = put(client, {**REST, "text": {"de": GERMAN}})
        assert (answer.status_code, answer.json()["field"]) == (422, "text")
        assert "no map" in answer.json()["detail"]


def test_the_example_puts_items_by_their_words_and_scores_them(
    own_world: World, image_encoder: Path
) -> None:
    variables = {"QIN_ENCODER": str(image_encoder), "QIN_DEADLINE_MS": PATIENCE_MS}
    service = start(
        "--bundle", str(own_world.models), "--store", own_world.store, "--example", **variables
    )
    try:
        wait_ready(service)
        deadline = time.monotonic() + 60
        while service.log.read_text().count("curl") < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        said = service.log.read_text()
        puts = re.findall(r"^curl -s -X PUT .*/v1/items/(\d+) .* -d (.+)$", said, re.MULTILINE)
        assert len(puts) == 2
        for item, data in puts:
            written = json.loads(*shlex.split(data))
            assert list(written.pop("text")) == ["de"]
            assert written["item_id"] == int(item)
            with service.client() as client:
                assert client.get(f"/v1/items/{item}").json()["item_tags"] == []
        answers = [json.loads(line) for line in said.splitlines() if '"scores"' in line]
        assert answers[1]["item_ids"] == [int(item) for item, _ in puts]
        assert answers[1]["unknown_items"] == []
        first, second = answers[1]["scores"]
        assert first != second  # by their words alone
    finally:
        service.stop()
        service.remove()


def test_texts_are_kept_where_the_stores_schema_says_so(
    image_encoder: Path, tmp_path: Path
) -> None:
    world = make_world(tmp_path, items=20, users=3)

    async def kept(schema: FeatureSchema | None = None) -> dict[str, str]:
        store = await connect(world.store, schema, create=schema is not None)
        [texts] = await store.descriptions(np.array([NEW]))
        await store.close()
        return texts

    asyncio.run(kept(world.schema.model_copy(update={"descriptions": True})))  # as a load does
    variables = {"QIN_ENCODER": str(image_encoder), "QIN_DEADLINE_MS": PATIENCE_MS}
    variables["QIN_STORE_WRITE_TIMEOUT_MS"] = PATIENCE_MS
    with serving(world.models, world.store, **variables) as running, running.client() as client:
        assert put(client, {**REST, "text": {"de": GERMAN, "en": ""}}).status_code == 200
        assert asyncio.run(kept()) == {"de": GERMAN}
        patched = client.patch(f"/v1/items/{NEW}", json={"text": {"en": ENGLISH}})
        assert patched.status_code == 200
        assert asyncio.run(kept()) == {"en": ENGLISH}
        assert client.patch(f"/v1/items/{NEW}", json={"likes_level": 1}).status_code == 204
        assert asyncio.run(kept()) == {"en": ENGLISH}
        assert client.patch(f"/v1/items/{NEW}", json={FEATURE: [1.0] * SIZE}).status_code == 204
        assert asyncio.run(kept()) == {}  # the vector is not theirs
        assert put(client, {**REST, "text": {"de": GERMAN}}).status_code == 200
        assert put(client, {**REST, FEATURE: [0.0] * SIZE}).status_code == 204
        assert asyncio.run(kept()) == {}
        assert put(client, {**REST, "text": {"de": GERMAN}}).status_code == 200
        assert client.delete(f"/v1/items/{NEW}").status_code == 204
        assert asyncio.run(kept()) == {}
        assert put(client, {**REST, "text": {"de": GERMAN}}).status_code == 200
    with serving(world.models, world.store) as running, running.client() as client:
        assert client.patch(f"/v1/items/{NEW}", json={FEATURE: [1.0] * SIZE}).status_code == 204
        assert asyncio.run(kept()) == {}  # without an encoder: of items' only vector
