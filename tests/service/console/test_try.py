"""The page Try it: scores as a client gets them, 64-bit ids, why, and the same by programs."""

from __future__ import annotations

import asyncio
import html
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from feature_store import connect
from service.console.snippets import numbered
from tests.service.console.conftest import (
    ANN,
    QUIET,
    TOKENS,
    Served,
    browser_of,
    csrf_of,
    log_in,
)
from tests.service.mapped_world import make_mapped, text_of
from tests.service.process import serving
from tests.service.world import World

HOSTILE = '<script>alert("item")</script>'
LARGEST = 2**63 - 1


def tried(client: httpx.Client, **form: object) -> httpx.Response:
    fields = {name: str(value) for name, value in form.items()}
    return client.post("/console/try", data={"csrf": csrf_of(client, "/console"), **fields})


def shown(page: str) -> list[tuple[str, list[str]]]:
    """Item and scores of each row."""
    rows = re.split(r'<tr><th scope="row">', page)[1:]
    return [
        (
            re.findall(r'class="code">([^<]*)<', row)[0],
            re.findall(r'class="value">([^<]*)<', row.partition("<details")[0]),
        )
        for row in rows
    ]


def snippet(page: str, number: int) -> str:
    found = re.search(rf'<pre id="snippet-{number}"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert found is not None
    return html.unescape(found[1])


def test_scores_are_those_that_a_client_gets_with_ids_of_63_bits(
    served: Served, ann: httpx.Client
) -> None:
    large = sorted(served.world.ids.tolist())[-3:]
    ids = [*large, *served.world.ids[:5].tolist()]
    assert max(large) > 2**53
    page = tried(ann, user_id=LARGEST, candidates=" ".join(map(str, ids)), version="small-2")
    assert page.status_code == 200
    body = {"user_id": LARGEST, "candidates": ids, "model_version": "small-2"}
    with served.service.client() as client:
        answer = client.post("/v1/score", json=body).json()
    truth = dict(zip(map(str, answer["item_ids"]), answer["scores"], strict=True))
    found = {item: float(scores[0]) for item, scores in shown(page.text)}
    assert found == {item: pytest.approx(score, abs=1e-5) for item, score in truth.items()}
    order = [item for item, _ in shown(page.text)]
    assert order == sorted(truth, key=lambda item: -truth[item])
    assert "History items that its interest came from" in page.text


def test_two_versions_side_by_side(served: Served, ann: httpx.Client) -> None:
    with served.service.admin(ANN) as api:
        assert api.post("/admin/models/small-1/load").status_code == 200
    ids = served.world.ids[:4].tolist()
    page = tried(ann, user_id=3, candidates=",".join(map(str, ids)), other="small-1").text
    expected = served.world.answer(served.world.users[3], np.array(ids))  # small-1's network
    found = dict(shown(page))
    for item, score in zip(ids, expected.tolist(), strict=True):
        assert float(found[str(item)][1]) == pytest.approx(score, abs=1e-4)
    assert len({tuple(scores) for scores in found.values()}) == 4


def test_random_candidates_are_the_stores(served: Served, ann: httpx.Client) -> None:
    page = tried(ann, user_id=3, random=12).text
    items = [int(item) for item, _ in shown(page)]
    assert len(items) == 12
    assert set(items) <= set(served.world.ids.tolist())


def test_what_is_not_ordinary_is_marked(served: Served, ann: httpx.Client) -> None:
    cold = next(iter(served.world.cold_ids))
    page = tried(ann, user_id=999_999, candidates=f"{cold} 999999999999").text
    assert "cold user: no history" in page
    assert re.search(rf"{cold}</span> <span[^>]*>cold<", page)
    assert re.search(r"999999999999</span> <span[^>]*>unknown<", page)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x"}, "user_id"),
        ({"user_id": "-1"}, "user_id"),
        ({"user_id": 2**63}, "user_id"),
        ({"user_id": "1", "candidates": "1 2 <b>"}, "candidates"),
        ({"user_id": "1", "candidates": "1.5"}, "candidates"),
        ({"user_id": "1", "candidates": " ".join(["1"] * 201)}, "at most 200"),
        ({"user_id": "1", "random": "0"}, "random"),
        ({"user_id": "1", "random": "1e9"}, "random"),
        ({"user_id": "1", "candidates": "1", "history": "y"}, "history"),
        ({"user_id": "1", "candidates": "1", "features": "["}, "features"),
        ({"user_id": "1", "candidates": "1", "features": "[]"}, "features"),
        ({"user_id": "1", "candidates": "1", "features": '{"none": 1}'}, "none"),
        ({"user_id": "1", "candidates": "1", "version": "gone"}, "gone"),
    ],
)
def test_a_request_that_is_none_says_what_is_wrong(
    ann: httpx.Client, form: dict[str, object], said: str
) -> None:
    page = tried(ann, **form)
    assert 400 <= page.status_code < 500
    alert = re.search(r'role="alert">([^<]*)<', page.text)
    assert alert is not None
    assert said in html.unescape(alert[1])
    assert "<b>" not in page.text


def test_it_needs_the_pages_token_and_works_where_it_reads_only(
    ann: httpx.Client, unguarded: Served
) -> None:
    assert ann.post("/console/try", data={"user_id": "1"}).status_code == 403
    with browser_of(unguarded) as client:
        page = client.get("/console/try").text
        csrf = re.search(r'name="csrf" value="([0-9a-f]+)"', page)
        assert csrf is not None
        found = client.post("/console/try", data={"csrf": csrf[1], "user_id": "1"})
        assert found.status_code == 200


def test_the_same_by_curl_python_and_tritonclient(served: Served, ann: httpx.Client) -> None:
    ids = served.world.ids[:4].tolist()
    page = tried(ann, user_id=3, candidates=" ".join(map(str, ids)), version="small-2").text
    scores = {int(item): float(values[0]) for item, values in shown(page)}
    curl = subprocess.run(["sh", "-c", snippet(page, 1)], capture_output=True, text=True)
    answer = json.loads(curl.stdout)
    assert answer["item_ids"] == ids
    assert answer["scores"] == [pytest.approx(scores[item], abs=1e-5) for item in ids]
    python = subprocess.run(
        [sys.executable, "-c", snippet(page, 2)], capture_output=True, text=True, timeout=60
    )
    assert json.loads(python.stdout) == pytest.approx(answer["scores"]), python.stderr
    done = subprocess.run(
        [sys.executable, "-c", snippet(page, 3)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == pytest.approx(answer["scores"])


@pytest.fixture
def described(tmp_path: Path, world: World) -> Iterator[Served]:
    """A service whose store has texts of an item, and ids that are texts."""
    kept = replace(world, network=copy(world.network))
    kept.network.schema = world.schema.model_copy(update={"descriptions": True})
    mapped = make_mapped(kept, tmp_path)

    async def describe() -> None:
        store = await connect(mapped.store, kept.schema)
        await store.put_descriptions({mapped.numbers[mapped.items[0]]: {"en": HOSTILE}})
        await store.close()

    asyncio.run(describe())
    with serving(mapped.models, mapped.store, QIN_ADMIN_TOKEN=TOKENS, **QUIET) as service:
        yield Served(service, world)


def test_texts_of_items_and_ids_that_are_texts_are_shown_as_text(described: Served) -> None:
    mapped_item = text_of(int(described.world.ids[0]))
    other = text_of(int(described.world.ids[1]))
    user = text_of(7)
    with browser_of(described) as client:
        log_in(client)
        page = tried(client, user_id=user, candidates=json.dumps([mapped_item, other])).text
        assert HOSTILE not in page
        assert html.escape(HOSTILE, quote=True).replace("&quot;", "&#34;") in page
        found = [html.unescape(item) for item, _ in shown(page)]
        assert sorted(found) == sorted([mapped_item, other])
        many = tried(client, user_id=user, random=9).text
        assert len(shown(many)) == 9


def test_numbers_are_written_exactly() -> None:
    request = {"user_id": str(LARGEST), "candidates": [str(2**53 + 1)], "features": {"hour": 1.5}}
    assert numbered(request) == {
        "user_id": LARGEST,
        "candidates": [2**53 + 1],
        "features": {"hour": 1.5},
    }
