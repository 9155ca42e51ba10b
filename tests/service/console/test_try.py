"""The page Try it: scores as a client gets them, 64-bit ids, why, and the same by programs."""

from __future__ import annotations

import asyncio
import html
import io
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import redirect_stdout
from copy import copy
from dataclasses import replace
from typing import cast

import httpx
import numpy as np
import pytest

from feature_store import connect
from feature_store.contract import FeatureStore
from feature_store.errors import StoreError
from service.console.snippets import numbered
from service.console.some_users import some_users
from tests.service.console.conftest import (
    ANN,
    QUIET,
    TOKENS,
    Served,
    browser_of,
    csrf_of,
    log_in,
)
from tests.service.mapped_world import MappedWorld, text_of
from tests.service.process import serving
from tests.service.user_world import make_mapped_users, make_user_world

HOSTILE = '<script>alert("item")</script>'
LARGEST = 2**63 - 1
API_KEY = "a-key-of-the-shop-1"


def tried(client: httpx.Client, **form: object) -> httpx.Response:
    fields = {name: str(value) for name, value in form.items()}
    return client.post("/console/try", data={"csrf": csrf_of(client, "/console"), **fields})


def shown(page: str) -> list[tuple[str, list[str]]]:
    """Item and scores of each row."""
    rows = re.split(r'<tr><th scope="row">', page)[1:]
    return [
        (
            re.findall(r'class="code">([^<]*)<', row)[0],
            re.findall(r'class="value"[^>]*>([^<]*)<', row.partition("<details")[0]),
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
        ({"user_id": "1", "random": "0000011"}, "random"),
        ({"user_id": "1", "random": "000001" + "0" * 5000}, "random"),
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


def users_of(page: str) -> dict[str, str]:
    """Ids of users that the page names, each with its link."""
    (said,) = re.findall(r'<p class="soft small ids" id="users">(.*?)</p>', page, re.DOTALL)
    links = re.findall(r'<a href="([^"]*)">([^<]*)</a>', said)
    return {html.unescape(name): html.unescape(link) for link, name in links}


def test_users_with_a_history_are_named_and_fill_the_form(
    served: Served, ann: httpx.Client
) -> None:
    found = users_of(ann.get("/console/try?candidates=1%202&unfolded=yes").text)
    assert len(found) == 3
    for user, link in found.items():
        assert int(user) in served.world.users
        page = ann.get(link).text
        assert f'name="user_id" type="text" required value="{user}"' in page
        assert 'value="1 2"' in page
        assert "cold user" not in tried(ann, user_id=user).text


def test_users_whose_ids_are_texts_are_named_by_them(
    described: tuple[Served, MappedWorld],
) -> None:
    served, _ = described
    with browser_of(served) as client:
        log_in(client)
        found = users_of(client.get("/console/try").text)
        assert 0 < len(found) <= 3
        for user, link in found.items():
            assert user in map(text_of, served.world.users)
            filled = re.search(r'name="user_id".*? value="([^"]*)"', client.get(link).text)
            assert filled is not None
            assert html.unescape(filled[1]) == user


class Unreadable:
    """A store that may not be scanned, or never answers."""

    text_ids = None

    def __init__(self, silent: bool) -> None:
        self._silent = silent

    async def scan_histories(self, batch_size: int) -> AsyncIterator[dict[int, np.ndarray]]:
        if not self._silent:
            raise StoreError("NOPERM")
        await asyncio.Event().wait()
        yield {}


@pytest.mark.parametrize("silent", [False, True])
async def test_a_store_that_cannot_be_scanned_names_no_users(silent: bool) -> None:
    assert await some_users(cast("FeatureStore", Unreadable(silent))) == []


@pytest.mark.parametrize(
    ("form", "opened"),
    [
        ({}, False),
        ({"unfolded": "yes"}, True),
        ({"history": "[]"}, True),
        ({"history": "[]", "unfolded": "no"}, False),
    ],
)
def test_history_and_features_stay_as_they_were_left(
    ann: httpx.Client, form: dict[str, str], opened: bool
) -> None:
    page = tried(ann, user_id=1, **form).text
    assert ('<details id="more" open>' in page) is opened


def printed(code: str) -> list[float]:
    """What a snippet prints."""
    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(code, "snippet", "exec"), {})
    found: list[float] = json.loads(output.getvalue())
    return found


def by_programs(page: str) -> list[list[float]]:
    """Scores by curl, Python and tritonclient, as float32."""
    curl = subprocess.run(["sh", "-c", snippet(page, 1)], capture_output=True, text=True)
    found = json.loads(curl.stdout)["scores"], printed(snippet(page, 2)), printed(snippet(page, 3))
    return [np.array(scores, np.float32).tolist() for scores in found]


def exact(page: str) -> dict[str, float]:
    """Scores as the page has them, to the last digit, by item."""
    rows = [row.partition("<details")[0] for row in re.split(r'<tr><th scope="row">', page)[1:]]
    pairs = [re.findall(r'class="code">([^<]*)<|class="value" title="([^"]*)"', r) for r in rows]
    return {html.unescape(item): float(np.float32(score)) for (item, _), (_, score) in pairs}


def test_the_same_by_curl_python_and_tritonclient(served: Served, ann: httpx.Client) -> None:
    ids = served.world.ids[:4].tolist()
    asked = {"user_id": 3, "candidates": " ".join(map(str, ids)), "version": "small-2"}
    pages = [tried(ann, **asked).text]
    for history in (" ".join(map(str, served.world.ids[20:25].tolist())), "[]"):
        pages.append(tried(ann, **asked, history=history).text)
    found = []
    for page in pages:
        scores = exact(page)
        found.append([scores[str(item)] for item in ids])
        assert by_programs(page) == [found[-1]] * 3
    assert len(set(map(tuple, found))) == 3


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, MappedWorld]]:
    """A service whose store has texts of an item, ids that are texts, and request features."""
    users = make_user_world(tmp_path_factory.mktemp("described"))
    kept = replace(users.world, network=copy(users.world.network))
    kept.network.schema = users.world.schema.model_copy(update={"descriptions": True})
    mapped = make_mapped_users(replace(users, world=kept), tmp_path_factory.mktemp("mapped"))

    async def describe() -> None:
        store = await connect(mapped.store, kept.schema)
        await store.put_descriptions({mapped.numbers[mapped.items[0]]: {"en": HOSTILE}})
        await store.close()

    asyncio.run(describe())
    keys = {"QIN_ADMIN_TOKEN": TOKENS, "QIN_API_KEYS": f"shop:{API_KEY}"}
    with serving(mapped.models, mapped.store, **keys, **QUIET) as service:
        yield Served(service, users.world), mapped


def test_features_history_and_key_are_in_every_program(
    described: tuple[Served, MappedWorld], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, mapped = described
    monkeypatch.setenv("QIN_API_KEY", API_KEY)
    items, past = mapped.items[:5], mapped.items[40:46]
    found = set()
    with browser_of(served) as client:
        log_in(client)
        for features in ({}, {"device": 3, "hour": 12}, {"device": None, "hour": 0.1}):
            page = tried(
                client,
                user_id=text_of(7),
                candidates=json.dumps(items),
                history=json.dumps(past),
                features=json.dumps(features),
            ).text
            scores = exact(page)
            expected = [scores[item] for item in items]
            assert by_programs(page) == [expected] * 3
            found.add(tuple(expected))
    assert len(found) == 3


def test_texts_of_items_and_ids_that_are_texts_are_shown_as_text(
    described: tuple[Served, MappedWorld],
) -> None:
    served, mapped = described
    mapped_item, other = mapped.items[:2]
    user = text_of(7)
    with browser_of(served) as client:
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
