"""A canary and a shadow between a plain version and one with users, features and levels."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from service.models.canary import Canary, seed_of
from service.state import ServiceState
from tests.service.in_process import ask, metric, opened
from tests.service.live import until
from tests.service.parity import TOLERANCE
from tests.service.user_world import REQUEST_FEATURES, USER_FEATURES, UserWorld, add_levels
from tests.service.world import World, make_world

PLAIN, LEVELS, SHARE = "small-1", "levels-1", 0.5
USERS = [*range(1, 14), 10**6, 10**6 + 1, 10**6 + 2]  # 1 to 4 have records, 1 to 11 histories
FEATURES: list[dict[str, Any]] = [{}, {"device": 3}, {"device": None, "hour": 21.5}]


@pytest.fixture
def plain(tmp_path: Path) -> World:
    return make_world(tmp_path, items=60, users=12)


@pytest.fixture
async def state(plain: World) -> AsyncIterator[ServiceState]:
    async with opened(plain, model_policy="manual") as state:
        yield state


@pytest.fixture
async def users(state: ServiceState, plain: World) -> UserWorld:
    """Of the other version, which is in memory beside the plain one that answers."""
    users = await add_levels(plain, LEVELS)
    await state.manager.load(LEVELS)
    return users


async def answer(
    state: ServiceState, plain: World, user: int, features: dict[str, Any]
) -> dict[str, Any]:
    body = {"user_id": user, "candidates": plain.ids[:9].tolist(), "features": features}
    found = await ask(state, **body)
    assert found.status_code == 200, found.text
    content: dict[str, Any] = found.json()
    return content


def expected(
    version: str, plain: World, users: UserWorld, user: int, features: dict[str, Any]
) -> NDArray[np.floating[Any]]:
    """(9,) by the version's network in PyTorch."""
    if version == LEVELS:
        return users.exact(user, plain.ids[:9], features)
    return plain.answer(plain.users.get(user, plain.ids[:0]), plain.ids[:9])


async def test_a_user_stays_with_the_canary_of_levels_or_with_the_plain_version(
    state: ServiceState, plain: World, users: UserWorld
) -> None:
    await state.manager.canary(LEVELS, SHARE)
    canary = Canary(None, SHARE, seed_of(LEVELS))  # type: ignore[arg-type]
    assert {canary.takes(user) for user in USERS[:4]} == {True, False}
    for features in FEATURES:
        for user in USERS:
            found = await answer(state, plain, user, features)
            version = LEVELS if canary.takes(user) else PLAIN
            assert found["model_version"] == version
            exact = expected(version, plain, users, user, features)
            assert_allclose(found["scores"], exact, atol=TOLERANCE)
            if version == PLAIN:
                assert ("defaulted" in found, found.get("ignored", [])) == (False, [*features])
            else:
                given = {name for name, value in features.items() if value is not None}
                missing = [name for name in REQUEST_FEATURES if name not in given]
                assert [n for n in found["defaulted"] if n in REQUEST_FEATURES] == missing
                assert (found["defaulted"][:4] == USER_FEATURES) is (user not in users.records)
                assert "ignored" not in found


@pytest.mark.parametrize(("active", "shadow"), [(PLAIN, LEVELS), (LEVELS, PLAIN)])
async def test_a_shadow_is_scored_with_its_own_features_of_the_same_requests(
    state: ServiceState, plain: World, users: UserWorld, active: str, shadow: str
) -> None:
    await state.manager.activate(active)
    await state.manager.set_shadow(shadow, 1.0)
    apart = []
    for number, (user, features) in enumerate(
        (user, features) for features in FEATURES for user in USERS[:8]
    ):
        found = await answer(state, plain, user, features)
        assert found["model_version"] == active
        own, other = (expected(v, plain, users, user, features) for v in (active, shadow))
        assert_allclose(found["scores"], own, atol=TOLERANCE)
        apart.append(np.abs(own - other))
        await until(
            lambda n=number: metric(state, "qin_shadow_requests_total", outcome="scored") == n + 1  # type: ignore[misc]
        )
    seen = state.manager.shadow.as_json()
    assert seen is not None
    assert (seen["requests"], seen["failed"], seen["dropped"]) == (len(apart), 0, 0)
    assert seen["mean_abs_delta_p"] == pytest.approx(np.mean(apart), abs=TOLERANCE)
    assert seen["worst_abs_delta_p"] == pytest.approx(np.max(apart), abs=TOLERANCE)
