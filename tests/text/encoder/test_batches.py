"""Batches: padding, words, sampling, texts that are in a batch once."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from text.encoder.batches import POOL, Sampler, chunks, distinct, padded, words_of
from text.encoder.data import windows_of
from text.tokenizer import END, PAD, START, Tokens

LENGTHS = st.lists(st.integers(2, 20), min_size=1, max_size=12)


def tokens_of(lengths: list[int], seed: int = 0) -> Tokens:
    """Texts of random ids; every second token goes on with the word before it."""
    generator = np.random.default_rng(seed)
    ids = [np.r_[START, generator.integers(5, 99, n - 2), END] for n in lengths]
    words = [np.r_[-1, np.arange(n - 2) // 2, -1] for n in lengths]
    return Tokens(
        np.concatenate(ids).astype(np.int32),
        np.concatenate(words).astype(np.int32),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


@settings(deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 2**31), data=st.data())
def test_a_padded_batch_has_each_text_then_padding(
    lengths: list[int], seed: int, data: st.DataObject
) -> None:
    tokens = tokens_of(lengths, seed)
    rows = np.asarray(
        data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=6)), np.int64
    )
    ids, found = padded(tokens, rows)
    words = words_of(tokens, rows)
    start = 0
    seen: set[int] = set()
    for row, line, length in zip(rows, ids.numpy(), found.tolist(), strict=True):
        own = slice(tokens.offsets[row], tokens.offsets[row + 1])
        assert length == lengths[row]
        assert (line[:length] == tokens.ids[own]).all()
        assert (line[length:] == PAD).all()
        numbers = words[start : start + length]
        assert ((numbers < 0) == (tokens.words[own] < 0)).all()
        assert seen.isdisjoint(numbers[numbers >= 0].tolist())
        seen |= set(numbers[numbers >= 0].tolist())
        start += length


def test_languages_are_drawn_equally_often_and_batches_follow_from_the_step() -> None:
    lengths = np.random.default_rng(1).integers(2, 100, 1000)
    groups = (np.arange(900), np.arange(900, 1000))
    sampler = Sampler(lengths, groups, 32, 7, "masked")
    drawn = np.concatenate([sampler.batch(step) for step in range(2 * POOL)])
    assert abs((drawn >= 900).mean() - 0.5) < 0.01
    again = Sampler(lengths, groups, 32, 7, "masked")
    assert (again.batch(21) == sampler.batch(21)).all()
    spread = [lengths[sampler.batch(step)] for step in range(POOL)]
    assert np.mean([np.ptp(own) for own in spread]) < 15  # a random batch has about 90


@given(
    keys=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=60),
    most=st.integers(1, 12),
)
def test_no_two_rows_of_a_batch_share_a_key(keys: list[tuple[int, int]], most: int) -> None:
    columns = np.asarray(keys, np.int64).reshape(-1, 2)
    kept = distinct(np.arange(len(keys)), (columns[:, 0], columns[:, 1]), most)
    assert len(kept) <= most
    for column in (columns[:, 0], columns[:, 1]):
        assert len(set(column[kept].tolist())) == len(kept)
    if len(kept) < most:  # every row left out has a key of one that is in
        for row in set(range(len(keys))) - set(kept.tolist()):
            assert (columns[kept] == columns[row]).any()


@settings(deadline=None)
@given(lengths=LENGTHS, longest=st.integers(3, 12))
def test_windows_hold_every_token_once_in_order(lengths: list[int], longest: int) -> None:
    tokens = tokens_of(lengths)
    windows, owner = windows_of(tokens, longest)
    assert windows.lengths.max(initial=0) <= longest
    for text in range(len(lengths)):
        own = [
            windows.ids[windows.offsets[w] : windows.offsets[w + 1]]
            for w in np.flatnonzero(owner == text)
        ]
        assert all(w[0] == START and w[-1] == END for w in own)
        inner = np.concatenate([w[1:-1] for w in own]) if own else np.empty(0, np.int32)
        assert (inner == tokens.ids[tokens.offsets[text] + 1 : tokens.offsets[text + 1] - 1]).all()


@given(lengths=st.lists(st.integers(2, 300), max_size=60), most=st.integers(1, 2000))
def test_chunks_hold_every_text_once_within_their_tokens(lengths: list[int], most: int) -> None:
    own = np.asarray(lengths, np.int64)
    parts = chunks(own, most)
    assert sorted(np.concatenate([*parts, []]).tolist()) == list(range(len(own)))
    for part in parts:
        assert len(part) == 1 or len(part) * own[part].max() <= most
    ascending = [int(own[part].min()) for part in parts]
    assert ascending == sorted(ascending)
