"""``POST /v1/embeddings`` of a real process: OpenAI's form, and every fault a 4xx that names it."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from service.api.embedding_models import MOST_TEXTS
from tests.service.process import PATIENCE_MS, Service, serving
from tests.service.world import World
from tests.text import small
from text.runtime.encoder import TextEncoder

PATH = "/v1/embeddings"
KEY = "a-key-of-the-shop"
LONG = "tree " * 2500


@pytest.fixture(scope="module")
def encoding_service(world: World, encoder_bundle: Path) -> Iterator[Service]:
    variables = {"QIN_ENCODER": str(encoder_bundle), "QIN_DEADLINE_MS": PATIENCE_MS}
    variables["QIN_ENCODER_DEADLINE_MS"] = "300000"  # its threads yield to all that is busy here
    with serving(world.models, world.store, **variables) as running:
        yield running


@pytest.fixture(scope="module")
def client(encoding_service: Service) -> Iterator[httpx.Client]:
    with encoding_service.client() as client:
        yield client


@pytest.fixture(scope="module")
def encoder(encoder_bundle: Path) -> TextEncoder:
    return TextEncoder.open(encoder_bundle)


def embedded(client: httpx.Client, text: Any, **more: Any) -> dict[str, Any]:
    answer = client.post(PATH, json={"input": text, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def vectors(answer: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.array([entry["embedding"] for entry in answer["data"]])


def near(found: Any, expected: Any) -> bool:
    return bool(np.abs(np.asarray(found) - expected).max() <= 2e-6)


def test_texts_are_answered_in_openais_form(client: httpx.Client, encoder: TextEncoder) -> None:
    texts = ["the tree", "das Haus", "the tree", "niño 🙂"]
    expected = encoder.encode(texts)
    answer = client.post(PATH, json={"input": texts, "model": "qin-text", "user": "u-7"})
    assert answer.headers["x-model-version"] == "words-1"
    found = answer.json()
    assert set(found) == {"object", "data", "model", "usage"}
    assert (found["object"], found["model"]) == ("list", "qin-text")
    assert [set(entry) for entry in found["data"]] == 4 * [{"object", "index", "embedding"}]
    assert [entry["index"] for entry in found["data"]] == [0, 1, 2, 3]
    assert near(vectors(found), expected.vectors)
    tokens = int(expected.tokens.sum())
    assert found["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_one_text_is_one_entry_and_the_version_is_a_name_too(
    client: httpx.Client, encoder: TextEncoder
) -> None:
    found = embedded(client, "das Haus", model="words-1")
    assert near(vectors(found), encoder.encode(["das Haus"]).vectors)


def test_base64_is_float32_little_endian(client: httpx.Client, encoder: TextEncoder) -> None:
    found = embedded(client, ["das Haus", "tree"], encoding_format="base64")
    numbers = [
        np.frombuffer(base64.b64decode(entry["embedding"]), "<f4") for entry in found["data"]
    ]
    assert near(numbers, encoder.encode(["das Haus", "tree"]).vectors)


def test_token_ids_are_encoded_as_their_text(client: httpx.Client, encoder: TextEncoder) -> None:
    ids = encoder.tokenizer.encode(["the tree"], 99).ids.tolist()
    expected = encoder.encode(["the tree"]).vectors[0]
    assert near(vectors(embedded(client, ids[1:-1]))[0], expected)
    found = embedded(client, [ids[1:-1], ids])
    assert near(vectors(found), expected)
    assert found["usage"]["prompt_tokens"] == 2 * len(ids)


def test_2048_texts_are_answered_each_with_its_own_vector(
    client: httpx.Client, encoder: TextEncoder
) -> None:
    texts = [f"tree {i} of the house" for i in range(MOST_TEXTS)]
    found = embedded(client, texts)
    chosen = [0, 31, 32, 1000, MOST_TEXTS - 1]
    expected = encoder.encode([texts[i] for i in chosen]).vectors
    assert near(vectors(found)[chosen], expected)


def test_a_text_that_is_too_long_is_cut_only_on_request_and_the_answer_says_so(
    client: httpx.Client, encoder: TextEncoder
) -> None:
    found = embedded(client, ["tree", LONG], truncate=True)
    assert [entry.get("truncated") for entry in found["data"]] == [None, True]
    assert found["usage"]["prompt_tokens"] > small.BLOCKWISE
    assert near(vectors(found), encoder.encode(["tree", LONG], truncate=True).vectors)


def test_late_chunking_gives_a_vector_of_each_span(
    client: httpx.Client, encoder: TextEncoder
) -> None:
    text, spans = "the tree of das Haus", [(0, 8), (4, 12), (12, 20)]
    expected = encoder.chunks(text, spans)
    (entry,) = embedded(client, text, late_chunking=spans)["data"]
    assert near(entry["embedding"], encoder.encode([text]).vectors[0])
    assert [chunk["span"] for chunk in entry["chunks"]] == [list(span) for span in spans]
    assert near([chunk["embedding"] for chunk in entry["chunks"]], expected.vectors)
    assert [chunk["tokens"] for chunk in entry["chunks"]] == expected.tokens.tolist()
    assert [chunk["overlapping"] for chunk in entry["chunks"]] == [True, True, False]
    both = embedded(client, ["Haus", text], late_chunking=[[[0, 4]], spans])["data"]
    assert [len(each["chunks"]) for each in both] == [1, 3]
    assert both[1]["chunks"] == entry["chunks"]


HOSTILE: dict[str, tuple[Any, int, str, str]] = {
    "no input": ({}, 422, "input", "required"),
    "null": ({"input": None}, 422, "input", "must be a text, a list of texts"),
    "a number": ({"input": 7}, 422, "input", "must be a text"),
    "an object": ({"input": {"a": 1}}, 422, "input", "must be a text"),
    "an empty list": ({"input": []}, 422, "input", "an empty list"),
    "an empty text": ({"input": ""}, 422, "input", "no tokens"),
    "an empty text of several": ({"input": ["a", ""]}, 422, "input.1", "no tokens"),
    "no ids": ({"input": [[5], []]}, 422, "input.1", "no tokens"),
    "special ids alone": ({"input": [[5], [0, 2]]}, 422, "input.1", "no tokens"),
    "null in a list": ({"input": ["a", None]}, 422, "input.1", "of another type"),
    "mixed": ({"input": ["a", 7]}, 422, "input.1", "of another type"),
    "true is no id": ({"input": [True]}, 422, "input.0", "of another type"),
    "1.0 is no id": ({"input": [[5, 1.0]]}, 422, "input.0.1", "must be a token id"),
    "a negative id": ({"input": [5, -1]}, 422, "input.1", "they are 0 to 279"),
    "an id beyond": ({"input": [[5], [5, 280]]}, 422, "input.1.1", "they are 0 to 279"),
    "a huge id": ({"input": [[2**80]]}, 422, "input.0.0", "they are 0 to 279"),
    "lists in lists": ({"input": [[[5]]]}, 422, "input.0.0", "must be a token id"),
    "too long": ({"input": ["a", "t" * 2047]}, 422, "input.1", "2,049 tokens, at most 2,048"),
    "ids too long": ({"input": [[5], [5] * 2047]}, 422, "input.1", "2,049 tokens, at most 2,048"),
    "2,049 texts": ({"input": ["a"] * 2049}, 422, "input", "2,049 texts, at most 2,048"),
    "too many ids": ({"input": [[5] * 2000] * 36}, 422, "input", "72,000 token ids"),
    "5,000 texts": ({"input": ["a"] * 5000}, 422, "body", "more strings than any valid"),
    "dimensions": ({"input": "a", "dimensions": 12}, 422, "dimensions", "trained for 24"),
    "dimensions NaN": ({"input": "a", "dimensions": float("nan")}, 422, "dimensions", ""),
    "dimensions of 4,000 digits": (
        {"input": "a", "dimensions": 10**4000},
        422,
        "dimensions",
        "less than or equal",
    ),
    "dimensions 0": ({"input": "a", "dimensions": 0}, 422, "dimensions", ""),
    "format": ({"input": "a", "encoding_format": "hex"}, 422, "encoding_format", ""),
    "truncate": ({"input": "a", "truncate": 1}, 422, "truncate", ""),
    "unknown": ({"input": "a", "prompt": "b"}, 422, "prompt", ""),
    "spans of ids": ({"input": [5], "late_chunking": [[0, 1]]}, 422, "late_chunking", "give texts"),
    "no spans": ({"input": "a", "late_chunking": []}, 422, "late_chunking", "at least one"),
    "no list": ({"input": "a", "late_chunking": 3}, 422, "late_chunking", "list of spans"),
    "a flat span": ({"input": "a", "late_chunking": [0, 1]}, 422, "late_chunking.0", "two"),
    "span beyond": (
        {"input": ["a", "bc"], "late_chunking": [[[0, 1]], [[0, 2], [1, 3]]]},
        *(422, "late_chunking.1.1", "outside of the text"),
    ),
    "negative span": (
        {"input": "abc", "late_chunking": [[-1, 2]]},
        *(422, "late_chunking.0", "outside of the text"),
    ),
    "lists of spans": (
        {"input": ["a", "b"], "late_chunking": [[[0, 1]]]},
        *(422, "late_chunking", "1 lists of spans for 2 texts"),
    ),
    "spans of an empty text": (
        {"input": ["a", ""], "late_chunking": [[[0, 1]], [[0, 1]]]},
        *(422, "late_chunking.1.0", "outside of the text"),
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_fault_is_a_4xx_that_names_field_and_text(client: httpx.Client, case: str) -> None:
    body, status, field, detail = HOSTILE[case]
    answer = client.post(PATH, content=json.dumps(body))
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["field"] == field
    assert detail in problem["detail"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (rb'{"input": "a\ud800"}', "input"),
        (rb'{"input": ["tree", "a\udc00b"]}', "input.1"),
    ],
)
def test_a_lone_surrogate_is_named(client: httpx.Client, body: bytes, field: str) -> None:
    answer = client.post(PATH, content=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)
    assert "a lone surrogate at character 1" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        (rb'{"input": 5, "model": "a\ud800"}', 400, "line 1"),
        (b'{"input": "a\xed\xa0\x80"}', 400, "line 1"),
        (b'{"input": "a"', 400, "line 1"),
        (rb'{"model": "\ud800", "input": "a"}', 400, "hex escape"),
        (b'["a"]', 422, "body"),
        (b'{"input": "a", "input": "b"}', 422, "input: given more than once"),
        (rb'{"input": "\"a\"", "input": "b"}', 422, "input: given more than once"),
        (rb'{"input": "\"a\\", "input": "b"}', 422, "input: given more than once"),
        (b"", 400, "line 1"),
    ],
)
def test_what_is_no_valid_json_is_refused(
    client: httpx.Client, body: bytes, status: int, detail: str
) -> None:
    answer = client.post(PATH, content=body)
    assert answer.status_code == status, answer.text
    assert detail in answer.json()["detail"]


def test_escapes_and_punctuation_in_texts_are_no_fault(
    client: httpx.Client, encoder: TextEncoder
) -> None:
    texts = ['a "quoted" \\ text, ' * 400, "1, 2, 3, ]}{[ " * 400, "\x00\n\t é"]
    found = embedded(client, texts, truncate=True)
    assert near(vectors(found), encoder.encode(texts, truncate=True).vectors)


def test_another_model_is_a_404(client: httpx.Client) -> None:
    answer = client.post(PATH, json={"input": "a", "model": "text-embedding-3-small"})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:qin:problem:unknown-model")
    assert "model: the encoder is qin-text" in answer.json()["detail"]


def test_a_body_has_a_limit_of_its_own(client: httpx.Client) -> None:
    beyond = client.post(PATH, json={"input": "a" * 2_097_152})
    assert (beyond.status_code, beyond.json()["limit_bytes"]) == (413, 2_097_152)
    body = b'{"input": ["tree"]' + b" " * 1_500_000 + b"}"
    assert client.post(PATH, content=body).status_code == 200
    score = client.post("/v1/score", content=b" " * 1_500_000)
    assert (score.status_code, score.json()["limit_bytes"]) == (413, 1_048_576)


def test_a_deadline_is_kept(client: httpx.Client) -> None:
    texts = [f"{i} tree" for i in range(MOST_TEXTS)]
    answer = client.post(PATH, json={"input": texts}, headers={"X-Deadline-Ms": "5"})
    assert answer.status_code in (429, 504)
    assert client.post(PATH, json={"input": "tree"}).status_code == 200
    wrong = client.post(PATH, json={"input": "tree"}, headers={"X-Deadline-Ms": "600001"})
    assert (wrong.status_code, wrong.json()["field"]) == (400, "X-Deadline-Ms")


def test_scores_and_probes_are_answered_while_texts_are_encoded(
    encoding_service: Service, client: httpx.Client, world: World
) -> None:
    done = threading.Event()
    statuses = []

    def encode() -> None:
        ids = np.arange(4 * 2000).reshape(4, -1) % 270 + 5  # each in a run of its own
        with encoding_service.client() as other:
            answer = other.post(PATH, json={"input": ids.tolist()}, timeout=300)
        statuses.append(answer.status_code)
        done.set()

    thread = threading.Thread(target=encode)
    thread.start()
    body = {"user_id": 1, "candidates": world.ids[:20].tolist()}
    answered = 0
    while not done.is_set():
        answered += client.post("/v1/score", json=body).status_code == 200
        answered += client.get("/livez").status_code == 200
    thread.join()
    assert statuses == [200]
    assert answered > 1


def test_metrics_count_requests_texts_tokens_and_cached_ones(client: httpx.Client) -> None:
    def read(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    cached, encoded = (f'qin_encoder_texts_total{{source="{s}"}}' for s in ("cached", "encoded"))
    names = (cached, encoded, "qin_encoder_tokens_total", 'qin_encoder_requests_total{outcome="ad')
    before = {name: read(name) for name in names}
    tokens = embedded(client, ["a text of this test alone", "tree"])["usage"]["prompt_tokens"]
    embedded(client, "a text of this test alone")
    assert read(cached) >= before[cached] + 1
    assert read(encoded) >= before[encoded] + 1
    assert 0 < read(names[2]) - before[names[2]] <= tokens
    assert read(names[3]) == before[names[3]] + 2
    assert read("qin_encoder_busy_seconds_total") > 0
    assert read(f'qin_requests_total{{route="{PATH}",status="200"}}') >= 2


def test_readiness_names_the_encoder_and_the_document_describes_the_route(
    client: httpx.Client,
) -> None:
    assert client.get("/readyz").json()["encoder"] == "words-1"
    document = client.get("/openapi.json").json()
    operation = document["paths"][PATH]["post"]
    assert operation["description"]
    assert {"404", "413", "422", "429"} <= set(operation["responses"])


def test_without_an_encoder_there_is_no_such_route(service: Service) -> None:
    with service.client() as client:
        assert client.post(PATH, json={"input": "a"}).status_code == 404
        assert "encoder" not in client.get("/readyz").json()
        assert PATH not in client.get("/openapi.json").json()["paths"]


def test_keys_are_wanted_as_elsewhere(world: World, encoder_bundle: Path) -> None:
    variables = {"QIN_ENCODER": str(encoder_bundle), "QIN_API_KEYS": f"shop:{KEY}"}
    with serving(world.models, world.store, **variables) as running, running.client() as client:
        assert client.post(PATH, json={"input": "a"}).status_code == 401
        answer = client.post(PATH, json={"input": "a"}, headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status_code == 200
