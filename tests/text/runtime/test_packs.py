"""Packs hold every text once, whole, in rows that it fits."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from text.runtime.packs import PADDING, Pack, pack, tokens_of

LENGTHS = st.lists(st.integers(3, 90), max_size=60)


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, row=st.integers(1, 40), call=st.integers(1, 300))
def test_every_text_lies_whole_in_one_row(lengths: list[int], row: int, call: int) -> None:
    packs = list(pack(lengths, row, call))
    assert sorted(text for each in packs for text in each.texts) == list(range(len(lengths)))
    for each in packs:
        assert each.length * len(each.rows) <= max(call, each.length)
        assert all(0 < sum(lengths[text] for text in r) <= each.length for r in each.rows)


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, row=st.integers(1, 40))
def test_no_row_is_longer_than_its_longest_text_or_the_least_row(
    lengths: list[int], row: int
) -> None:
    for each in pack(lengths, row, 256):
        assert each.length <= max(row, max(lengths[text] for text in each.texts))


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS.filter(bool), seed=st.integers(0, 999))
def test_the_graph_is_given_each_texts_own_tokens(lengths: list[int], seed: int) -> None:
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    ids = np.random.default_rng(seed).integers(0, 1000, offsets[-1]).astype(np.int32)
    for each in pack(lengths, 32, 128):
        laid = tokens_of(each, ids, offsets)
        for text, row, number in zip(each.texts, laid.row, laid.number, strict=True):
            own = laid.ids[:, row][laid.text[:, row] == number]
            assert own.tolist() == ids[offsets[text] : offsets[text + 1]].tolist()
        used = sum(lengths[text] for text in each.texts)
        assert (laid.text != PADDING).sum() == used


def test_texts_of_one_length_lie_alone_in_rows_of_that_length() -> None:
    assert list(pack([40] * 5, 32, 120)) == [
        Pack(40, ((4,), (3,), (2,))),
        Pack(40, ((1,), (0,))),
    ]


def test_short_texts_fill_what_a_longer_one_leaves_free() -> None:
    assert list(pack([10, 50, 30, 20], 8, 60)) == [
        Pack(50, ((1,),)),
        Pack(30, ((2,), (3, 0))),
    ]


def test_texts_of_half_a_rows_length_get_shorter_rows() -> None:
    """Attention costs each token the length of its row."""
    assert [each.length for each in pack([200, 40, 40, 40], 32, 512)] == [200, 40]


def test_a_mix_of_lengths_is_padded_by_little() -> None:
    lengths = np.random.default_rng(0).geometric(1 / 20, 2000) + 3
    places = sum(each.length * len(each.rows) for each in pack(lengths.tolist(), 32, 512))
    assert places / lengths.sum() < 1.02
