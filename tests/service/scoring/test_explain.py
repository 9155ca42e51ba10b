"""``explain``: per candidate, the history items that its interest came from."""

from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from service.api.score_models import ScoreAnswer
from tests.service.world import World

USER = 11
UNKNOWN = 10**15 + 1


def ask(client: httpx.Client, candidates: Any, **fields: Any) -> dict[str, Any]:
    body = {"user_id": USER, "candidates": [int(i) for i in candidates], **fields}
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    ScoreAnswer.model_validate_json(answer.content)
    content: dict[str, Any] = answer.json()
    return content


def test_every_score_is_explained_by_items_of_the_history(
    world: World, client: httpx.Client
) -> None:
    candidates = [*world.ids[:30], UNKNOWN, world.ids[31]]
    answer = ask(client, candidates, explain=3)
    told = answer["explanations"]
    assert len(told) == 32
    assert told[30] is None
    history = set(world.users[USER].tolist())
    attended = 0
    for one in (*told[:30], told[31]):
        assert len(one["item_ids"]) == len(one["shares"]) <= 3
        assert set(one["item_ids"]) <= history
        assert len(set(one["item_ids"])) == len(one["item_ids"])
        assert one["shares"] == sorted(one["shares"], reverse=True)
        assert all(0 < share <= 1 for share in one["shares"])
        assert sum(one["shares"]) <= 1 + 1e-5
        attended += bool(one["shares"])
    assert attended > 10
    plain = ask(client, candidates)
    assert plain["scores"] == answer["scores"]
    assert "explanations" not in plain


def test_the_best_are_explained_in_their_order(world: World, client: httpx.Client) -> None:
    candidates = world.ids[:40]
    whole = ask(client, candidates, explain=2)
    by_item = dict(zip(whole["item_ids"], whole["explanations"], strict=True))
    best = ask(client, candidates, explain=2, top_k=5)
    assert best["explanations"] == [by_item[item] for item in best["item_ids"]]


def test_taking_the_named_items_away_takes_the_interest_away(
    world: World, client: httpx.Client
) -> None:
    """A share of 1 in one item: without it, the score is that of an empty history."""
    history = world.users[USER][:4].tolist()
    answer = ask(client, world.ids[:60], history=history, explain=4)
    alone = 0
    for item, score, told in zip(
        answer["item_ids"], answer["scores"], answer["explanations"], strict=True
    ):
        rest = [one for one in history if one not in told["item_ids"]]
        without = ask(client, [item], history=rest)["scores"][0]
        nothing = ask(client, [item], history=[])["scores"][0]
        assert without == pytest.approx(nothing, abs=1e-6)
        alone += abs(score - nothing) > 1e-4
        if alone == 5:
            break
    assert alone == 5


def test_an_item_clicked_twice_is_named_once_with_both_shares(
    world: World, client: httpx.Client
) -> None:
    a, b = world.users[USER][:2].tolist()
    once = ask(client, world.ids[:40], history=[a, b], explain=2)["explanations"]
    twice = ask(client, world.ids[:40], history=[a, b, a], explain=2)["explanations"]
    seen = 0
    for one, two in zip(once, twice, strict=True):
        share = dict(zip(one["item_ids"], one["shares"], strict=True))
        again = dict(zip(two["item_ids"], two["shares"], strict=True))
        if a in share and b in share:
            expected = 2 * share[a] / (2 * share[a] + share[b])
            assert again[a] == pytest.approx(expected, abs=1e-5)
            seen += 1
    assert seen


def test_nothing_is_told_where_there_is_no_history(world: World, client: httpx.Client) -> None:
    answer = ask(client, [*world.ids[:2], UNKNOWN], history=[], explain=5)
    assert answer["explanations"] == [{"item_ids": [], "shares": []}] * 2 + [None]
    assert ask(client, [UNKNOWN], explain=5)["explanations"] == [None]


@pytest.mark.parametrize("explain", [0, -1, 101, 1.5, True, "3"])
def test_how_many_is_a_number_in_bounds(
    client: httpx.Client, world: World, explain: object
) -> None:
    body = {"user_id": 1, "candidates": [int(world.ids[0])], "explain": explain}
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 422
    assert answer.json()["field"] == "explain"


def test_all_of_a_short_history_sums_to_one(world: World, client: httpx.Client) -> None:
    answer = ask(client, world.ids[:20], history=world.users[USER][:3].tolist(), explain=100)
    sums = [sum(one["shares"]) for one in answer["explanations"] if one["shares"]]
    np.testing.assert_allclose(sums, 1, atol=1e-5)
    assert sums
