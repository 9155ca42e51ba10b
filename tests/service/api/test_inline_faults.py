"""Faults while inline candidates are encoded count as those of the version that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import DeadlinePassed, OverCapacity
from service.observability.version_stats import VersionStats
from service.state import ServiceState
from tests.service.content_encoder import content_encoder
from tests.service.in_process import ask, opened
from tests.service.world import World, make_world
from text.runtime.encoder import NOT_FINITE
from text.runtime.errors import TextError

FEATURES = {"item_tags": [3, 9], "likes_level": 2, "views_level": 1}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path]:
    folder = tmp_path_factory.mktemp("faults")
    return make_world(folder), content_encoder(folder / "encoders")


@pytest.fixture
async def serving(made: tuple[World, Path], tmp_path: Path) -> AsyncIterator[ServiceState]:
    world, encoder = made
    async with opened(world, encoder=encoder, private=tmp_path / "private") as state:
        yield state


async def score(state: ServiceState, text: str) -> httpx.Response:
    candidate = {"text": {"de": text}, "features": FEATURES}
    return await ask(state, user_id=5, candidates=[candidate])


def stats(state: ServiceState) -> VersionStats:
    assert state.registry.active is not None
    return state.registry.active.stats


def counts(state: ServiceState) -> tuple[int, int, int]:
    """Answers, failures and those that expired."""
    found = stats(state)
    return found.answers, found.failures, found.expired


@pytest.mark.parametrize(
    ("error", "status", "counted"),
    [
        (TextError(0, "", NOT_FINITE), 500, (0, 1, 0)),
        (RuntimeError("broken"), 500, (0, 1, 0)),
        (TextError(0, "", "no tokens"), 422, (0, 0, 0)),
        (OverCapacity("full", headers={"Retry-After": "1"}), 429, (0, 0, 0)),
        (DeadlinePassed("late"), 504, (1, 0, 1)),
    ],
)
async def test_a_fault_while_encoding_is_counted_once(
    serving: ServiceState,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    counted: tuple[int, int, int],
) -> None:
    async def broken(*given: Any, **named: Any) -> None:
        raise error

    monkeypatch.setattr(type(serving.encoding), "encode", broken)
    answer = await score(serving, "das Haus")
    assert answer.status_code == status, answer.text
    assert counts(serving) == counted
    assert serving.registry.active is not None
    assert serving.registry.under_way(serving.registry.active) == 0


async def test_an_answer_is_counted_once_and_the_callers_faults_are_not(
    serving: ServiceState,
) -> None:
    assert (await score(serving, "das Haus")).status_code == 200
    assert counts(serving) == (1, 0, 0)
    assert (await score(serving, "")).status_code == 422
    assert counts(serving) == (1, 0, 0)
