"""Request features that the version that answers does not have: left out if another version has
them, or if the service is set to, and named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_allclose

from service.state import ServiceState
from tests.service.in_process import ask, metric, opened
from tests.service.live import until
from tests.service.parity import TOLERANCE
from tests.service.user_world import UserWorld, add_levels
from tests.service.world import World, make_world

FEATURES = {"device": 2, "hour": 8.0}
PLAIN, LEVELS = "small-1", "levels-1"


@pytest.fixture
def plain(tmp_path: Path) -> World:
    return make_world(tmp_path, items=60, users=6)


@pytest.fixture
async def state(plain: World) -> AsyncIterator[ServiceState]:
    """Answers with the plain version."""
    async with opened(plain) as state:
        yield state


@pytest.fixture
async def users(state: ServiceState, plain: World) -> UserWorld:
    """Of the other version, which is in the models folder, not loaded."""
    return await add_levels(plain)


def asked(plain: World, user: int = 2) -> dict[str, Any]:
    return {"user_id": user, "candidates": plain.ids[:9].tolist()}


def ignored(state: ServiceState, kind: str) -> float:
    return metric(state, "qin_ignored_features_total", kind=kind)


async def test_swaps_between_plain_and_levels_answer_clients_that_send_features(
    state: ServiceState, plain: World, users: UserWorld
) -> None:
    before = (await ask(state, **asked(plain))).json()
    assert "ignored" not in before
    early = await ask(state, **asked(plain), features=FEATURES)
    assert (early.status_code, early.json()["field"]) == (422, "features.device")

    await state.manager.load(LEVELS)
    for active, verb in ((PLAIN, None), (LEVELS, "activate"), (PLAIN, "rollback")):
        if verb == "activate":
            await state.manager.activate(LEVELS)
        elif verb == "rollback":
            await state.manager.rollback()
        answer = (await ask(state, **asked(plain), features=FEATURES)).json()
        assert answer["model_version"] == active
        if active == LEVELS:
            exact = users.exact(2, plain.ids[:9], FEATURES)
            assert_allclose(answer["scores"], exact, atol=TOLERANCE)
            assert "ignored" not in answer
        else:
            assert answer["scores"] == before["scores"]
            assert (answer["ignored"], "defaulted" in answer) == (["device", "hour"], False)
    assert (ignored(state, "other_version"), ignored(state, "unknown")) == (4, 0)


@pytest.mark.usefixtures("users")
async def test_a_name_that_no_version_has_is_refused_by_name(
    state: ServiceState, plain: World
) -> None:
    await state.manager.load(LEVELS)
    for version, there in ((PLAIN, "none"), (LEVELS, "device, hour")):
        refused = await ask(
            state, **asked(plain), features={**FEATURES, "minute": 3}, model_version=version
        )
        assert (refused.status_code, refused.json()["field"]) == (422, "features.minute")
        assert refused.json()["detail"].endswith(f"no such request feature; there are: {there}")


@pytest.mark.usefixtures("users")
@pytest.mark.parametrize("value", [[2], {"a": 1}, "2", True])
async def test_values_of_ignored_features_are_numbers_or_null(
    state: ServiceState, plain: World, value: Any
) -> None:
    await state.manager.load(LEVELS)
    refused = await ask(state, **asked(plain), features={"hour": None, "device": value})
    assert (refused.status_code, refused.json()["field"]) == (422, "features.device")


async def test_canary_and_shadow_take_their_own_features(
    state: ServiceState, plain: World, users: UserWorld
) -> None:
    await state.manager.canary(LEVELS, 1.0)
    answer = (await ask(state, **asked(plain), features=FEATURES)).json()
    exact = users.exact(2, plain.ids[:9], FEATURES)
    assert (answer["model_version"], "ignored" in answer) == (LEVELS, False)
    assert_allclose(answer["scores"], exact, atol=TOLERANCE)
    await state.manager.canary(LEVELS, 0)

    await state.manager.set_shadow(LEVELS, 1.0)
    answer = (await ask(state, **asked(plain), features=FEATURES)).json()
    assert (answer["model_version"], answer["ignored"]) == (PLAIN, ["device", "hour"])
    await until(lambda: metric(state, "qin_shadow_requests_total", outcome="scored") == 1)
    shadow = state.manager.shadow.as_json()
    assert shadow is not None
    apart = abs(exact - answer["scores"]).mean()
    assert shadow["mean_abs_delta_p"] == pytest.approx(apart, abs=TOLERANCE)


@pytest.mark.usefixtures("users")
async def test_features_of_a_version_that_was_rolled_back_automatically_are_ignored(
    state: ServiceState, plain: World
) -> None:
    await state.manager.activate(LEVELS)
    await state.manager.rollback("it is slow")
    await until(lambda: state.registry.loaded() == [PLAIN])  # it was unloaded
    answer = await ask(state, **asked(plain), features=FEATURES)
    assert answer.json().get("ignored") == ["device", "hour"], answer.text


async def test_features_of_no_version_are_ignored_where_the_service_is_set_to(
    plain: World,
) -> None:
    async with opened(plain, unknown_features="ignore") as state:
        before = (await ask(state, **asked(plain))).json()
        answer = (await ask(state, **asked(plain), features={**FEATURES, "minute": None})).json()
        assert (answer["ignored"], answer["scores"]) == (
            ["device", "hour", "minute"],
            before["scores"],
        )
        assert (ignored(state, "other_version"), ignored(state, "unknown")) == (0, 3)
        for odd in ("x" * 64, "Hour", ""):  # no feature of any schema can have this name
            refused = await ask(state, **asked(plain), features={odd: 1})
            assert refused.status_code == 422, refused.text
        refused = await ask(state, **asked(plain), features={"hour": [1]})
        assert (refused.status_code, refused.json()["field"]) == (422, "features.hour")
