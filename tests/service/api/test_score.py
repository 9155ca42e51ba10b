"""``POST /v1/score`` as a client sees it: a real process, a real bundle, a real store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from tests.service.parity import TOLERANCE, compare
from tests.service.world import World

UNKNOWN = 10**15 + 1
NOBODY = 10**15 + 2


def score(client: httpx.Client, user_id: int, candidates: Any, **fields: Any) -> dict[str, Any]:
    body = {"user_id": user_id, "candidates": [int(i) for i in candidates], **fields}
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def test_scores_are_the_networks_own(world: World, client: httpx.Client) -> None:
    parity = compare(world, client, 120)
    assert parity.cases == 120
    assert parity.max_abs_error <= TOLERANCE, parity.worst_case
    assert parity.history_lengths == set(range(world.schema.history_length + 1))
    assert [len(levels) for levels in parity.levels.values()] == [11, 7]
    assert parity.cold_candidates
    assert parity.untagged_candidates
    assert parity.highest - parity.lowest > 0.5


def test_the_answer_says_who_answered_and_what_was_not_ordinary(
    world: World, client: httpx.Client
) -> None:
    cold = sorted(world.cold_ids)[0]
    warm = next(i for i in world.ids.tolist() if i not in world.cold_ids)
    answer = client.post(
        "/v1/score",
        json={"user_id": 3, "candidates": [UNKNOWN, cold, warm, UNKNOWN]},
        headers={"X-Request-Id": "mine-1"},
    )
    content = answer.json()
    assert content.pop("scores")[1:3] == pytest.approx(
        world.answer(world.users[3], np.array([cold, warm])), abs=TOLERANCE
    )
    assert content == {
        "model_version": "small-1",
        "request_id": "mine-1",
        "item_ids": [UNKNOWN, cold, warm, UNKNOWN],
        "cold_user": False,
        "unknown_items": [UNKNOWN],
        "unreadable_items": [],
        "cold_items": [cold],
        "unknown_history": [],
        "degraded": [],
    }
    assert answer.headers["X-Request-Id"] == "mine-1"
    assert answer.headers["X-Model-Version"] == "small-1"


def test_an_unknown_item_has_no_score_and_disturbs_no_other(
    world: World, client: httpx.Client
) -> None:
    known = world.ids[:5].tolist()
    mixed = [known[0], UNKNOWN, *known[1:3], UNKNOWN + 5, *known[3:]]
    scores = score(client, 3, mixed)["scores"]
    assert [i for i, s in enumerate(scores) if s is None] == [1, 4]
    assert [s for s in scores if s is not None] == score(client, 3, known)["scores"]


def test_only_unknown_items_is_still_an_answer(client: httpx.Client) -> None:
    assert score(client, 3, [UNKNOWN])["scores"] == [None]
    assert score(client, 3, [UNKNOWN], top_k=5)["item_ids"] == []


def test_a_duplicate_is_answered_at_each_of_its_positions(
    world: World, client: httpx.Client
) -> None:
    one, other = world.ids[:2].tolist()
    answer = score(client, 3, [one, other, one, one])
    assert answer["item_ids"] == [one, other, one, one]
    assert len(set(answer["scores"])) == 2
    assert answer["scores"][0] == answer["scores"][2] == answer["scores"][3]


def test_an_unknown_user_is_scored_with_an_empty_history_and_said_so(
    world: World, client: httpx.Client
) -> None:
    candidates = world.ids[:9]
    answer = score(client, NOBODY, candidates)
    assert answer["cold_user"] is True
    assert answer["scores"] == pytest.approx(world.answer(world.ids[:0], candidates), abs=TOLERANCE)
    assert score(client, 3, candidates, history=[])["scores"] == answer["scores"]


def test_an_inline_history_replaces_the_stored_one(world: World, client: httpx.Client) -> None:
    candidates, history = world.ids[:9], world.ids[20:28]
    answer = score(client, 3, candidates, history=history[::-1].tolist())
    assert answer["cold_user"] is False
    assert answer["scores"] == pytest.approx(world.answer(history, candidates), abs=TOLERANCE)
    assert answer["scores"] != score(client, 3, candidates)["scores"]


def test_unknown_history_items_are_left_out_and_listed(world: World, client: httpx.Client) -> None:
    candidates, history = world.ids[:3], world.ids[20:22].tolist()
    answer = score(client, 3, candidates, history=[history[0], UNKNOWN, history[1]])
    assert answer["unknown_history"] == [UNKNOWN]
    assert answer["scores"] == score(client, 3, candidates, history=history)["scores"]
    several = score(client, 3, candidates, history=[UNKNOWN, history[0], UNKNOWN + 1, UNKNOWN])
    assert several["unknown_history"] == [UNKNOWN, UNKNOWN + 1]  # newest first
    several = score(client, 3, candidates, history=[UNKNOWN, history[0], UNKNOWN + 1])
    assert several["unknown_history"] == [UNKNOWN + 1, UNKNOWN]


def test_context_overrides_what_is_stored(world: World, client: httpx.Client) -> None:
    candidates = world.ids[:7]
    plain = score(client, 3, candidates)
    likes = [1, 2, 3, 4, 5, 6, 10]
    answer = score(client, 3, candidates, context={"likes_level": likes})
    assert answer["scores"] != plain["scores"]
    rows = world.rows[:7]
    context = np.stack([np.array(likes), rows["views_level"]], 1).astype(np.int32)
    assert answer["scores"] == pytest.approx(
        world.answer(world.users[3], candidates, context), abs=TOLERANCE
    )


def test_top_k_answers_the_best_first(world: World, client: httpx.Client) -> None:
    candidates = [*world.ids[:20].tolist(), UNKNOWN]
    everything = score(client, 3, candidates)
    ranked = sorted(
        ((s, i) for s, i in zip(everything["scores"], candidates, strict=True) if s is not None),
        key=lambda pair: -pair[0],
    )
    answer = score(client, 3, candidates, top_k=5)
    assert answer["item_ids"] == [i for _, i in ranked[:5]]
    assert answer["scores"] == [s for s, _ in ranked[:5]]
    assert answer["unknown_items"] == [UNKNOWN]
    assert len(score(client, 3, candidates, top_k=500)["item_ids"]) == 20


def test_lists_of_every_length_are_cut_and_joined_without_a_seam(
    world: World, client: httpx.Client
) -> None:
    candidates = np.resize(world.ids, 5000)
    answer = score(client, 3, candidates)
    one_by_one = dict(zip(world.ids.tolist(), score(client, 3, world.ids)["scores"], strict=True))
    expected = [one_by_one[i] for i in candidates.tolist()]
    assert answer["item_ids"] == candidates.tolist()
    assert answer["scores"] == pytest.approx(expected, abs=1e-6)


def test_the_largest_ids_are_ids_like_any_other(world: World, client: httpx.Client) -> None:
    assert score(client, 2**63 - 1, world.ids[:2])["cold_user"] is False
    assert score(client, 3, [2**63 - 1])["unknown_items"] == [2**63 - 1]


@pytest.mark.parametrize("version", ["small-1", "active"])
def test_a_loaded_version_may_be_asked_for(
    world: World, client: httpx.Client, version: str
) -> None:
    assert score(client, 3, world.ids[:1], model_version=version)["model_version"] == "small-1"


def test_another_version_is_refused_with_those_there_are(
    world: World, client: httpx.Client
) -> None:
    body = {"user_id": 3, "candidates": world.ids[:1].tolist(), "model_version": "small-2"}
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 404
    assert answer.json()["loaded"] == ["small-1"]
    assert answer.json()["field"] == "model_version"


def test_stages_sum_to_the_total(world: World, client: httpx.Client) -> None:
    body = {"user_id": 3, "candidates": world.ids[:50].tolist()}
    answer = client.post("/v1/score", json=body, headers={"X-Server-Timing": "1"})
    stages = {
        name: float(duration)
        for name, _, duration in (
            part.strip().partition(";dur=") for part in answer.headers["Server-Timing"].split(",")
        )
    }
    total = stages.pop("total")
    assert {"parse", "store", "table", "queue", "history", "rank", "encode", "other"} <= set(stages)
    assert sum(stages.values()) == pytest.approx(total, abs=0.02)
    assert min(stages.values()) >= 0
    assert "Server-Timing" not in client.post("/v1/score", json=body).headers


@pytest.mark.parametrize("given", ["", "with space", "x" * 129, "é"])
def test_a_request_id_that_is_not_sane_is_replaced(
    world: World, client: httpx.Client, given: str
) -> None:
    answer = client.get("/livez", headers={"X-Request-Id": given.encode()})
    made = answer.headers["X-Request-Id"]
    assert made != given
    assert len(made) == 32


def test_past_its_deadline_an_answer_is_a_504(world: World, client: httpx.Client) -> None:
    body = {"user_id": 3, "candidates": np.resize(world.ids, 5000).tolist()}
    answer = client.post("/v1/score", json=body, headers={"X-Deadline-Ms": "0.01"})
    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:qin:problem:deadline-passed"
    assert client.post("/v1/score", json=body, headers={"X-Deadline-Ms": "9000"}).is_success


def test_answers_asked_for_at_once_are_each_their_own(world: World, client: httpx.Client) -> None:
    """Lists long and short, users in and out of turn, eight at a time."""
    random = np.random.default_rng(5)
    asked = [
        (int(random.choice(list(world.users))), random.choice(world.ids, size))
        for size in random.choice([1, 3, 40, 700, 1300], 120)
    ]
    alone = [score(client, user, candidates)["scores"] for user, candidates in asked]
    with ThreadPoolExecutor(8) as together:
        at_once = list(together.map(lambda case: score(client, *case)["scores"], asked))
    assert at_once == alone
