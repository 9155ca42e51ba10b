"""Forecasts of encoding, and what they refuse."""

from __future__ import annotations

from collections.abc import AsyncIterator
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from service.context import Priority
from service.encoding.token_admission import (
    FIRST_GUESS_A_TOKEN_S,
    RUN,
    TokenAdmission,
    TokenCost,
    TokenPermit,
)
from service.engine.engine import Engine
from service.errors import OverCapacity
from service.observability.metrics import Metrics

NO_ENCODER: Any = None  # nothing is encoded


@pytest.fixture
async def admission() -> AsyncIterator[TokenAdmission]:
    engine = Engine(1, chunk=1, min_chunk=1, name="encoder")
    yield TokenAdmission(engine, Metrics())
    engine.close()


def enter(
    admission: TokenAdmission,
    tokens: int | list[int],
    within: float,
    priority: Priority = Priority.ONLINE,
) -> TokenPermit:
    lengths = np.atleast_1d(np.array(tokens))
    return admission.enter(NO_ENCODER, lengths, admission.cost, priority, perf_counter() + within)


def test_tokens_of_long_texts_are_predicted_apart_from_those_of_short_ones() -> None:
    cost = TokenCost()
    assert cost.predict(np.array([10, 20])) == pytest.approx(30 * FIRST_GUESS_A_TOKEN_S)
    cost.learn(100, 30, 0.01)
    cost.learn(8000, 8000, 8.0)
    assert cost.predict(np.array([17, 31, 8000])) == pytest.approx(48e-4 + 8.0)
    assert cost.predict(np.array([3])) == pytest.approx(3e-4)  # by its nearest
    assert cost.predict(np.array([], np.int64)) == 0


async def test_what_would_miss_its_deadline_is_refused(admission: TokenAdmission) -> None:
    with enter(admission, 100_000, 0.001):  # admitted: nothing is ahead, and forecasts may be wrong
        with pytest.raises(OverCapacity, match="no time before the deadline") as refused:
            enter(admission, 100_000, 15.0)
        assert refused.value.headers == {"Retry-After": "1"}
        with enter(admission, 100_000, 25.0):
            pass
    with enter(admission, 100_000, 0.001):
        pass
    assert admission.forecast() == 0


async def test_a_short_request_waits_for_one_run_of_a_long_one(admission: TokenAdmission) -> None:
    with enter(admission, 100, 9), enter(admission, 1000 * [100], 60):
        expected = (100 + RUN) * FIRST_GUESS_A_TOKEN_S
        assert admission.forecast() == pytest.approx(expected)
        with enter(admission, 10, 1.0):
            pass
        with pytest.raises(OverCapacity):
            enter(admission, 600 * [100], 15.0)


async def test_batch_waits_half_as_long_and_is_not_ahead_of_online(
    admission: TokenAdmission,
) -> None:
    with enter(admission, 400, 9, Priority.BATCH) as batch:
        assert admission.forecast() == 0
        assert admission.forecast(Priority.BATCH) > 0
        batch.defer()
    with enter(admission, 400, 9) as online:
        enter(admission, 10, 0.06)
        with pytest.raises(OverCapacity) as refused:
            enter(admission, 10, 0.06, Priority.BATCH)
        assert refused.value.headers == {"Retry-After": "5"}
        online.defer()
        assert admission.forecast() == 0


async def test_a_request_counts_with_its_tokens_once_these_are_counted(
    admission: TokenAdmission,
) -> None:
    with enter(admission, 400, 9) as permit:
        permit.expect(np.array([100]))
        assert admission.forecast() == pytest.approx(100 * FIRST_GUESS_A_TOKEN_S)


async def test_tokens_are_guessed_from_characters(admission: TokenAdmission) -> None:
    assert admission.guess(np.array([0, 100, 100_000]), 8192).tolist() == [1, 50, 8192]
    for _ in range(200):
        admission.learn_tokens(1000, 200)
    assert admission.guess(np.array([100]), 8192).tolist() == [20]
