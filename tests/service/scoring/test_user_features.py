"""Users' records and request features on the way of a request, in a loaded service."""

from __future__ import annotations

import asyncio
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from feature_store import connect
from feature_store.errors import StoreMismatch, StoreUnavailable
from feature_store.lmdb.environment import USERS, acquire, release
from feature_store.options import StoreOptions
from loadtest.oracle.bundle_oracle import BundleOracle
from model_export.build import build
from model_export.quality.random_network import random_network
from service.errors import ModelRefused
from tests.service.in_process import ask, metric, opened
from tests.service.live import until
from tests.service.parity import TOLERANCE
from tests.service.quantised import with_int8
from tests.service.user_world import (
    LEVELLED,
    SIZES,
    USER_FEATURES,
    UserWorld,
    make_user_world,
    make_users,
    put_users,
)
from tests.service.world import World, make_world

NOBODY = 10**12
KNOWN = 11  # has a history and a record
FEATURES = {"device": 2, "hour": 8.0}


@pytest.fixture
def users(tmp_path: Path) -> UserWorld:
    """A world this test may damage."""
    return make_user_world(tmp_path)


@pytest.fixture
def plain(tmp_path: Path) -> World:
    return make_world(tmp_path, items=60, users=6)


def calls(state: Any, operation: str) -> float:
    return metric(state, "qin_store_duration_seconds_count", operation=operation)


async def test_history_and_record_are_one_round_trip(users: UserWorld) -> None:
    items = users.world.ids[:9].tolist()
    async with opened(users.world) as state:
        await ask(state, user_id=KNOWN, candidates=items, features=FEATURES)
        await ask(state, user_id=KNOWN, candidates=items, history=items)
        assert (calls(state, "user"), calls(state, "history")) == (2, 0)


async def test_a_plain_model_reads_histories_alone_and_refuses_features(plain: World) -> None:
    items = plain.ids[:9].tolist()
    async with opened(plain) as state:
        answer = await ask(state, user_id=1, candidates=items)
        assert "defaulted" not in answer.json()
        assert (calls(state, "user"), calls(state, "history")) == (0, 1)
        refused = await ask(state, user_id=1, candidates=items, features={"hour": 3})
        assert (refused.status_code, refused.json()["field"]) == (422, "features.hour")
        assert refused.json()["detail"].endswith("no such request feature; there are: none")


async def test_a_damaged_record_is_scored_as_none_and_named(users: UserWorld) -> None:
    items = users.world.ids[:9]
    environment = acquire(Path(users.world.store.removeprefix("lmdb://")), create=False)
    environment.write(
        lambda txn: txn.put(struct.pack(">Q", KNOWN), b"nonsense", db=environment.db[USERS])
    )
    release(environment)
    del users.records[KNOWN]
    async with opened(users.world) as state:
        answer = (await ask(state, user_id=KNOWN, candidates=items.tolist())).json()
        assert answer["degraded"] == ["user"]
        assert answer["defaulted"][:4] == USER_FEATURES
        assert_allclose(answer["scores"], users.exact(KNOWN, items), atol=TOLERANCE)
        assert metric(state, "qin_degraded_total", what="user") == 1


@pytest.mark.parametrize("policy", ["degrade", "fail"])
async def test_a_store_that_does_not_answer(
    users: UserWorld, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    items = users.world.ids[:9]
    async with opened(users.world, on_store_failure=policy) as state:

        async def down(user_id: int) -> None:
            raise StoreUnavailable("no answer")

        monkeypatch.setattr(state.store, "user", down)
        asked: dict[str, Any] = {"user_id": KNOWN, "candidates": items.tolist()}
        answer = await ask(state, **asked, features=FEATURES)
        inline = await ask(state, **asked, features=FEATURES, history=items[:3].tolist())
        if policy == "fail":
            assert answer.status_code == inline.status_code == 503
            return
        del users.records[KNOWN]
        assert answer.json()["degraded"] == ["history", "user"]
        nothing = users.exact(KNOWN, items, FEATURES, history=items[:0])
        assert_allclose(answer.json()["scores"], nothing, atol=TOLERANCE)
        assert inline.json()["degraded"] == ["user"]
        given = users.exact(KNOWN, items, FEATURES, history=items[2::-1])
        assert_allclose(inline.json()["scores"], given, atol=TOLERANCE)


async def test_a_record_that_makes_scores_overflow_is_left_out(users: UserWorld) -> None:
    items, record = users.world.ids[:9], users.records.pop(KNOWN).copy()
    record["taste"] = 1e37
    await put_users(users.world.store, {KNOWN: record})
    async with opened(users.world) as state:
        asked: dict[str, Any] = {"user_id": KNOWN, "candidates": items.tolist()}
        answer = (await ask(state, **asked, features=FEATURES)).json()
        assert answer.get("degraded") == ["user"], answer
        assert_allclose(answer["scores"], users.exact(KNOWN, items, FEATURES), atol=TOLERANCE)
        refused = await ask(state, **asked, features={"device": 2, "hour": 1e38})
        assert (refused.status_code, refused.json()["field"]) == (422, "features.hour")


async def test_int8_shortlists_and_their_audit_know_the_user(
    users: UserWorld, tmp_path: Path
) -> None:
    world, items = with_int8(users.world, tmp_path / "int8"), users.world.ids[:120]
    features = {"device": 2, "hour": 0.5}  # within what the gate saw
    async with opened(world, precision="int8", top_k_recheck=1.0) as state:
        answer = await ask(
            state, user_id=KNOWN, candidates=items.tolist(), features=features, top_k=5
        )
        exact = users.exact(KNOWN, items, features)
        best = np.argsort(-exact, kind="stable")[:5]
        assert answer.json()["item_ids"] == items[best].tolist()
        assert_allclose(answer.json()["scores"], exact[best], atol=TOLERANCE)
        await until(lambda: metric(state, "qin_top_k_rechecks_total", result="equal") == 1)


async def test_a_store_that_does_not_fit_the_named_bundle_is_refused_with_cause_and_remedy(
    plain: World,
) -> None:
    other = build(random_network(LEVELLED, SIZES), plain.models.parent / "alone", version="levels")
    refusal = r"^bundle levels: .*user\.country: not in the store.*`python -m feature_store load"
    with pytest.raises(StoreMismatch, match=refusal):
        async with opened(plain, bundle=other.path):
            pass
    with pytest.raises(StoreMismatch, match=refusal):
        await asyncio.to_thread(BundleOracle, other.path, plain.store)


async def test_from_plain_to_users_that_are_added_to_the_same_store(plain: World) -> None:
    """Without a restart: user features and records are loaded in place, then a version that has
    them is shadowed, activated and rolled back."""
    items, numbers = plain.ids[:9], np.array([1, 2, 3, NOBODY])
    rows, network = (
        make_users(4, np.random.default_rng(3), LEVELLED),
        random_network(LEVELLED, SIZES),
    )
    users = UserWorld(
        replace(plain, network=network), dict(zip(numbers.tolist(), np.split(rows, 4), strict=True))
    )
    asked: dict[str, Any] = {"user_id": 2, "candidates": items.tolist()}
    async with opened(plain) as state:
        before = (await ask(state, **asked)).json()
        build(network, plain.models, version="levels-1")
        with pytest.raises(ModelRefused, match=r"user\.country: not in the store"):
            await state.manager.activate("levels-1")

        options = StoreOptions(budget_ms=5_000)
        store = await connect(plain.store, LEVELLED, create=True, options=options)
        await store.put_users(numbers, rows)
        await store.close()
        await state.manager.set_shadow("levels-1", 1.0)
        assert (await ask(state, **asked)).json()["scores"] == before["scores"]
        await until(lambda: metric(state, "qin_shadow_requests_total", outcome="scored") == 1)
        await state.manager.activate("levels-1")
        for user in (2, 5, NOBODY):
            answer = (await ask(state, **asked | {"user_id": user}, features=FEATURES)).json()
            assert_allclose(answer["scores"], users.exact(user, items, FEATURES), atol=TOLERANCE)
            assert ("taste" in answer["defaulted"]) is (user == 5)
        shadowed = metric(state, "qin_shadow_requests_total", outcome="scored")
        await state.manager.set_shadow("small-1", 1.0)  # without the features that it does not have
        assert (await ask(state, **asked, features=FEATURES)).status_code == 200
        await until(
            lambda: metric(state, "qin_shadow_requests_total", outcome="scored") == shadowed + 1
        )
        await state.manager.rollback()
        after = (await ask(state, **asked)).json()
        assert {**after, "request_id": ""} == {**before, "request_id": ""}
