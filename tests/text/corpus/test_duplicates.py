from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text.corpus.duplicates import Verdict, judge, signatures, words

WORDS = [f"word{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(400)]


def verdicts(texts: list[str], splits: list[int] | None = None) -> list[Verdict]:
    found = [words(text) for text in texts]
    keys = np.array([hash(" ".join(text)) % 2**64 for text in found], np.uint64)
    n = len(texts)
    judged, _ = judge(
        keys,
        np.zeros(n, np.uint64),
        signatures(found),
        np.array(splits or [0] * n, np.uint8),
        np.zeros(n, np.uint8),
        np.ones(n, bool),
    )
    return [Verdict(verdict) for verdict in judged]


@given(st.lists(st.sampled_from(["a b c d", "e f g h", "i j k l", "m n o p"]), min_size=1))
@settings(max_examples=50, deadline=None)
def test_the_first_of_equal_texts_is_kept(texts: list[str]) -> None:
    expected = [
        Verdict.DUPLICATE if text in texts[:n] else Verdict.KEPT for n, text in enumerate(texts)
    ]
    assert verdicts(texts) == expected


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 2)), min_size=1))
@settings(max_examples=50, deadline=None)
def test_the_earliest_split_keeps_a_text(given_: list[tuple[str, int]]) -> None:
    texts = [f"{letter} is the letter here" for letter, _ in given_]
    splits = [split for _, split in given_]
    kept = [
        (text, split)
        for text, split, verdict in zip(texts, splits, verdicts(texts, splits), strict=True)
        if verdict is Verdict.KEPT
    ]
    assert len(kept) == len(set(texts))
    for text, split in kept:
        assert split == min(s for t, s in zip(texts, splits, strict=True) if t == text)


def test_case_numbers_and_punctuation_make_no_difference() -> None:
    texts = [
        "Python 3.11, the interpreter!",
        "python 3.9: The Interpreter",
        "Perl, the interpreter",
    ]
    assert verdicts(texts) == [Verdict.KEPT, Verdict.DUPLICATE, Verdict.KEPT]


@pytest.mark.parametrize(("length", "changed", "least"), [(40, 1, 0.95), (120, 4, 0.90)])
def test_texts_with_few_changed_words_are_near(length: int, changed: int, least: float) -> None:
    random = np.random.default_rng(0)
    texts = []
    for _ in range(200):
        text = random.choice(WORDS, length).tolist()
        other = list(text)
        for place in random.choice(length, changed, replace=False):
            other[place] = "other"
        texts += [" ".join(text), " ".join(other)]
    found = verdicts(texts)
    assert found[::2].count(Verdict.KEPT) == 200
    assert found[1::2].count(Verdict.NEAR_DUPLICATE) >= least * 200


def test_texts_with_many_changed_words_are_not_near() -> None:
    random = np.random.default_rng(1)
    texts = []
    for _ in range(300):
        text = random.choice(WORDS, 30).tolist()
        texts += [" ".join(text), " ".join(text[:15] + random.choice(WORDS, 15).tolist())]
    assert verdicts(texts).count(Verdict.KEPT) == 600


def test_a_near_text_of_another_split_recurs() -> None:
    text = " ".join(WORDS[:60])
    near = text.replace(WORDS[30], "other")
    assert verdicts([near, text], [2, 0]) == [Verdict.RECURS, Verdict.KEPT]


def test_a_text_near_to_one_that_recurs_recurs() -> None:
    """Else a training text would be two steps away from a test text, and its pair counted twice."""
    text = list(WORDS[:100])
    near = ["other" if n in (3, 13, 23, 33) else word for n, word in enumerate(text)]
    second = ["other" if n in (43, 53, 63, 73) else word for n, word in enumerate(near)]
    texts = [" ".join(each) for each in (text, near, second)]
    assert verdicts([texts[0], texts[2]], [0, 2]) == [Verdict.KEPT, Verdict.KEPT]
    assert verdicts(texts, [0, 2, 2]) == [Verdict.KEPT, Verdict.RECURS, Verdict.RECURS]


def test_signatures_estimate_the_jaccard_similarity() -> None:
    random = np.random.default_rng(2)
    text = random.choice(WORDS, 400, replace=False).tolist()
    other = text[:200] + [f"x{word}" for word in text[200:]]
    a, b = signatures([text, other])
    pairs = [set(zip(t, [*t[1:], ""], strict=True)) for t in (text, other)]
    jaccard = len(pairs[0] & pairs[1]) / len(pairs[0] | pairs[1])
    assert abs(float((a == b).mean()) - jaccard) < 0.25


def test_a_signature_does_not_depend_on_its_neighbours() -> None:
    texts = [words(text) for text in ("one two three", "four", "five six")]
    together = signatures(texts)
    alone = np.concatenate([signatures([text]) for text in texts])
    assert np.array_equal(together, alone)
