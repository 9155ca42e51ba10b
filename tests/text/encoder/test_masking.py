"""Masking of whole words."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from text.encoder.masking import mask_words
from text.tokenizer import MASK, SPECIAL

VOCABULARY = 1000


@settings(max_examples=100, deadline=None)
@given(
    pieces=st.lists(st.integers(1, 5), min_size=0, max_size=30),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**31),
)
def test_words_are_masked_whole_and_special_tokens_never(
    pieces: list[int], share: float, seed: int
) -> None:
    words = np.concatenate([[-1], np.repeat(np.arange(len(pieces)), pieces), [-1]]).astype(np.int64)
    ids = np.full(len(words), 500)
    masked, chosen = mask_words(
        ids, words, share, MASK, (len(SPECIAL), VOCABULARY), np.random.default_rng(seed)
    )
    assert not chosen[[0, -1]].any()
    for word in range(len(pieces)):
        assert len(set(chosen[words == word].tolist())) == 1
    assert (masked[~chosen] == ids[~chosen]).all()
    assert ((masked >= len(SPECIAL)) | (masked == MASK)).all()


def test_30_percent_of_which_80_are_masked_10_random_10_kept() -> None:
    words = np.arange(200_000)
    ids = np.full(len(words), 500)
    masked, chosen = mask_words(
        ids, words, 0.3, MASK, (len(SPECIAL), VOCABULARY), np.random.default_rng(1)
    )
    assert abs(chosen.mean() - 0.3) < 0.005
    of_chosen = masked[chosen]
    assert abs((of_chosen == MASK).mean() - 0.8) < 0.01
    assert abs((of_chosen == 500).mean() - 0.1) < 0.01
    assert abs(((of_chosen != MASK) & (of_chosen != 500)).mean() - 0.1) < 0.01
