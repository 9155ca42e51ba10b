"""``POST /v1/score`` of a model with user and request features: its scores, what is refused, and
what the answers say was missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.testing import assert_allclose

from model_export.bundle.vectors import known
from tests.service.mapped_world import text_of
from tests.service.parity import TOLERANCE
from tests.service.process import serving
from tests.service.user_world import (
    LEVELLED,
    REQUEST_FEATURES,
    USER_FEATURES,
    UserWorld,
    make_mapped_users,
    make_user_world,
)

NOBODY = 10**12
GIVEN: list[dict[str, Any]] = [
    {},
    {"device": 3, "hour": 14.5},
    {"device": 0, "hour": None},
    {"device": None},
    {"hour": -7},
    {"device": 5},
]


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> UserWorld:
    return make_user_world(tmp_path_factory.mktemp("users"))


@pytest.fixture(scope="module")
def client(users: UserWorld) -> Iterator[httpx.Client]:
    with serving(users.world.models, users.world.store) as service, service.client() as client:
        yield client


def scored(client: httpx.Client, **body: Any) -> dict[str, Any]:
    answer = client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def defaulted(users: UserWorld, user: int, features: dict[str, Any]) -> list[str]:
    record, found = users.records.get(user), list[str]()
    for feature in LEVELLED.user:
        missing = record is None
        if record is not None and feature.kind == "categorical":
            missing = not known(record[feature.name], feature.vocabulary)[0]
        found += [feature.name] * missing
    found += ["device"] * (not features.get("device"))
    return found + ["hour"] * (features.get("hour") is None)


def cases(users: UserWorld, count: int) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """A user, request features, and what else is asked; records without a history, histories
    without a record and unknown users among them."""
    random, world = np.random.default_rng(3), users.world
    everyone = [*users.records, *world.users, NOBODY]
    for number in range(count):
        items = random.choice(world.ids, random.integers(1, 12))
        more: dict[str, Any] = {}
        if number % 3 == 1:
            more["history"] = random.choice(world.ids, number % 13).tolist()
        if number % 4 == 1:
            more["context"] = {"likes_level": random.integers(0, 11, len(items)).tolist()}
        user = everyone[number % len(everyone)]
        yield user, GIVEN[number % len(GIVEN)], {"candidates": items.tolist(), **more}


def expected(users: UserWorld, user: int, features: dict[str, Any], more: dict[str, Any]) -> Any:
    history = np.array(more["history"][::-1], np.int64) if "history" in more else None
    return users.exact(
        user,
        np.array(more["candidates"]),
        features,
        history=history,
        context=more.get("context"),
    )


def test_scores_are_the_networks_own_whatever_is_missing(
    users: UserWorld, client: httpx.Client
) -> None:
    answers = []
    for user, features, more in cases(users, 180):
        body = {"features": features} if features else {}
        found = scored(client, user_id=user, **more, **body)
        assert_allclose(found["scores"], expected(users, user, features, more), atol=TOLERANCE)
        assert found["defaulted"] == defaulted(users, user, features)
        answers.append(found)
    assert any(not found["defaulted"] for found in answers)
    assert any(found["defaulted"] == USER_FEATURES + REQUEST_FEATURES for found in answers)
    assert any(found["cold_user"] and "taste" not in found["defaulted"] for found in answers)


def test_features_change_scores_and_missing_ones_are_those_of_nobody(
    users: UserWorld, client: httpx.Client
) -> None:
    items = users.world.ids[:9].tolist()
    ask = {"candidates": items, "history": users.world.ids[20:25].tolist()}
    without = scored(client, user_id=NOBODY, **ask)["scores"]
    empty = {"device": 0, "hour": None}
    assert scored(client, user_id=NOBODY, features=empty, **ask)["scores"] == without
    with_hour = scored(client, user_id=NOBODY, features={"hour": 9.0}, **ask)["scores"]
    with_user = scored(client, user_id=101, **ask)["scores"]
    assert len({str(one) for one in (without, with_hour, with_user)}) == 3


def test_text_ids_have_the_same_scores(users: UserWorld, tmp_path: Path) -> None:
    mapped = make_mapped_users(users, tmp_path)
    with serving(mapped.models, mapped.store) as service, service.client() as client:
        for user, features, more in cases(users, 60):
            body = {"features": features, "user_id": text_of(user), **more}
            for name in ("candidates", "history"):
                if name in more:
                    body[name] = list(map(text_of, more[name]))
            found = scored(client, **body)
            assert_allclose(found["scores"], expected(users, user, features, more), atol=TOLERANCE)
            assert found["defaulted"] == defaulted(users, user, features)


def test_the_best_and_their_reasons_know_the_user(users: UserWorld, client: httpx.Client) -> None:
    user, features, items = 11, {"device": 2, "hour": 8.0}, users.world.ids[:60]
    exact = users.exact(user, items, features)
    found = scored(
        client, user_id=user, candidates=items.tolist(), features=features, top_k=5, explain=3
    )
    assert found["item_ids"] == items[np.argsort(-exact, kind="stable")[:5]].tolist()
    assert_allclose(found["scores"], np.sort(exact)[::-1][:5], atol=TOLERANCE)
    assert all(len(one["item_ids"]) <= 3 for one in found["explanations"])


@pytest.mark.parametrize(
    ("features", "field"),
    [
        ('{"minute": 3}', "features.minute"),
        ('{"country": 3}', "features.country"),
        ('{"device": 6}', "features.device"),
        ('{"device": -1}', "features.device"),
        ('{"device": 2.0}', "features.device"),
        ('{"device": true}', "features.device"),
        ('{"device": "2"}', "features.device"),
        ('{"device": [2]}', "features.device"),
        (f'{{"device": {10**30}}}', "features.device"),
        ('{"device": NaN}', "features.device"),
        ('{"hour": NaN}', "features.hour"),
        ('{"hour": -Infinity}', "features.hour"),
        ('{"hour": 1e999}', "features.hour"),
        ('{"hour": 1e39}', "features.hour"),
        ('{"hour": 1e38}', "features.hour"),  # finite, and its scores are not
        (f'{{"hour": {10**400}}}', "features.hour"),
        ('{"hour": "9"}', "features.hour"),
        ('{"hour": false}', "features.hour"),
        ('{"hour": {"a": 1}}', "features.hour"),
        ('{"hour": 9, "hour": 9}', "hour"),
        ("[3]", "features"),
        ("null", "features"),
    ],
)
def test_what_is_wrong_with_a_feature_names_it(
    users: UserWorld, client: httpx.Client, features: str, field: str
) -> None:
    body = f'{{"user_id": 3, "candidates": [{users.world.ids[0]}], "features": {features}}}'
    answer = client.post("/v1/score", content=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


def test_candidates_without_any_score_say_what_was_missing(client: httpx.Client) -> None:
    found = scored(client, user_id=101, candidates=[NOBODY], features={"hour": 3})
    assert found["scores"] == [None]
    assert found["unknown_items"] == [NOBODY]
    assert "hour" not in found["defaulted"]
    assert "device" in found["defaulted"]
