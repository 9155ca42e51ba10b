"""The contest of exact top-k against a full float32 pass, at sizes that take no time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model_export.bench import top_k
from model_export.bench.top_k import ListShape, run
from tests.model_export.schemas import LEVELS, LEVELS_SIZES, SMALL, SMALL_SIZES
from tests.openvino import needs_bf16


def contest(**options: Any) -> dict[str, Any]:
    return run(SMALL, ListShape(5, 60, 8), sizes=SMALL_SIZES, lists=40, seconds=0.1, **options)


def test_both_ways_answer_alike_and_are_timed() -> None:
    seen: list[tuple[str, int, int]] = []
    figures = contest(announce=lambda *step: seen.append(step))
    speed, exactness = figures["speed"], figures["exactness"]
    assert (speed["network_width"], exactness["network_width"]) == (64, 128)
    assert speed["lists"] >= 1
    assert 1 <= exactness["lists"] <= 40
    assert speed["different"] == exactness["different"] == 0
    assert speed["speedup"] == speed["fp32_ms"] / speed["top_k_ms"]
    assert 5 <= exactness["rescored_median"] <= exactness["rescored_most"] <= 60
    assert [step[1:] for step in seen] == [(n, 3) for n in range(4)]


@needs_bf16
def test_bf16_answers_alike_too() -> None:
    figures = contest(low="bf16")
    assert figures["precision"] == "bf16"
    assert figures["speed"]["different"] == figures["exactness"]["different"] == 0
    assert figures["least_speedup"] == top_k.BAR


def test_with_users_both_ways_answer_alike() -> None:
    figures = run(LEVELS, ListShape(5, 60, 6), sizes=LEVELS_SIZES, lists=20, seconds=0.1)
    assert figures["speed"]["different"] == figures["exactness"]["different"] == 0


def test_a_shortlist_that_is_too_short_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(logit: Any, k: int, bound: float) -> Any:
        return np.sort(np.argsort(-logit, kind="stable")[:k])  # no margin for int8's error

    monkeypatch.setattr(top_k, "shortlist", careless)
    figures = contest()
    assert figures["exactness"]["different"] > 0
    assert not figures["met"]
