"""The k best, and the rest of an answer that needs no service to be tested."""

from __future__ import annotations

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from feature_store.contract import CORRUPT, FOUND, MISSING
from model_export.bundle.top_k import best
from tests.service.answers import answer as answer_of

scores = st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, float("nan")]), max_size=40)


@given(scores, st.integers(1, 50))
def test_the_best_come_first_and_ties_keep_the_order_asked(values: list[float], k: int) -> None:
    known = [i for i, value in enumerate(values) if value == value]
    expected = sorted(known, key=lambda i: (-values[i], i))[:k]
    assert best(np.array(values, np.float32), k).tolist() == expected


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_scores_survive_their_json_bit_for_bit(values: list[float]) -> None:
    answer = answer_of(values)
    content = orjson.loads(answer.json("v", "r", None))
    assert np.array(content["scores"], np.float32).tobytes() == answer.scores.tobytes()


def test_a_missing_score_is_null_and_its_item_listed_once() -> None:
    scores, status = [np.nan, 0.5, np.nan], [MISSING, FOUND, MISSING]
    answer = answer_of(scores, status=status, candidates=np.array([0, 1, 0]))
    content = orjson.loads(answer.json("v", "r", None))
    assert content["scores"] == [None, 0.5, None]
    assert content["unknown_items"] == [0]
    assert orjson.loads(answer.json("v", "r", 3))["item_ids"] == [1]


@given(st.lists(st.booleans(), min_size=1, max_size=8), st.booleans())
def test_what_is_known_to_be_complete_reads_as_what_was_looked_through(
    cold: list[bool], lost: bool
) -> None:
    scores, found = [0.5] * len(cold), [FOUND] * len(cold)
    known = answer_of(scores, cold=cold, history=3, history_lost=lost)
    some = answer_of(scores, cold=cold, history=3, history_lost=lost, status=found)
    assert known.complete
    assert not some.complete
    assert known.json("v", "r", None) == some.json("v", "r", None)
    for kind in (FOUND, MISSING, CORRUPT):
        assert known.count(kind) == some.count(kind)
    assert known.history_dropped == some.history_dropped
    assert known.degraded == some.degraded
