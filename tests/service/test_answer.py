"""The k best, and the rest of an answer that needs no service to be tested."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contract import CORRUPT, FOUND, MISSING
from service.answer import Answer, best

scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("nan")]), max_size=40)


@given(scores, st.integers(1, 50))
def test_the_best_come_first_and_ties_keep_the_order_asked(values: list[float], k: int) -> None:
    known = [i for i, value in enumerate(values) if value == value]
    expected = sorted(known, key=lambda i: (-values[i], i))[:k]
    assert best(np.array(values, np.float32), k).tolist() == expected


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_scores_survive_their_json_bit_for_bit(values: list[float]) -> None:
    answer = _answer(np.array(values, np.float32), np.full(len(values), FOUND, np.uint8))
    content = orjson.loads(answer.json("v", "r", None))
    assert np.array(content["scores"], np.float32).tobytes() == answer.scores.tobytes()


def test_a_missing_score_is_null_and_its_item_listed_once() -> None:
    status = np.array([MISSING, FOUND, MISSING], np.uint8)
    answer = _answer(np.array([np.nan, 0.5, np.nan], np.float32), status)
    content = orjson.loads(answer.json("v", "r", None))
    assert content["scores"] == [None, 0.5, None]
    assert content["unknown_items"] == [0]
    assert orjson.loads(answer.json("v", "r", 3))["item_ids"] == [1]


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.booleans())
def test_what_is_known_to_be_complete_reads_as_what_was_looked_through(
    cold: list[bool], lost: bool
) -> None:
    status = np.full(len(cold), FOUND, np.uint8)
    some = replace(
        _answer(np.full(len(cold), 0.5, np.float32), status),
        cold=np.array(cold),
        history=np.arange(3),
        history_status=np.full(3, FOUND, np.uint8),
        history_lost=lost,
    )
    known = replace(some, complete=True)
    assert known.json("v", "r", None) == some.json("v", "r", None)
    for kind in (FOUND, MISSING, CORRUPT):
        assert known.count(kind) == some.count(kind)
    assert known.history_dropped == some.history_dropped
    assert known.degraded == some.degraded


def _answer(values: np.ndarray, status: np.ndarray) -> Answer:
    count = len(values)
    return Answer(
        candidates=np.arange(count) % 2,
        scores=values,
        history=np.empty(0, np.int64),
        status=status,
        history_status=np.empty(0, np.uint8),
        cold=np.zeros(count, np.bool_),
    )
