"""The stages: each step's loss is that of its recipe, over a batch that follows from the step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.text.encoder import forward
from tests.text.encoder.test_batches import tokens_of
from text.encoder import stages
from text.encoder.jinabert import JinaBert, MaskedLanguageHead
from text.encoder.recipe import Masked, MultiTask, Pairs
from text.encoder.sizes import EncoderSizes
from text.tokenizer import MASK, Tokens

SIZES = EncoderSizes(vocabulary=120, hidden=16, layers=1, heads=2, intermediate=8)
COUNT = 60
FIRST, SECOND = np.arange(COUNT), np.arange(COUNT, 2 * COUNT)
FAMILY = np.arange(COUNT) // 3
TOKENS = tokens_of([6 + n % 7 for n in range(2 * COUNT)])


@dataclass
class Encoded:
    """What a stage has encoded: the texts of the last batch, and their vectors."""

    rows: list[int] = field(default_factory=list)
    vectors: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Encoded:
    last, own = Encoded(), stages.embed_batch

    def recording(network: JinaBert, tokens: Tokens, rows: NDArray[np.int64]) -> torch.Tensor:
        vectors = own(network, tokens, rows)
        last.rows, last.vectors = rows.tolist(), vectors.detach().numpy()
        return vectors

    monkeypatch.setattr(stages, "embed_batch", recording)
    return last


@pytest.fixture
def network() -> JinaBert:
    torch.manual_seed(2)
    return JinaBert(SIZES).double()


def pairs_stage(network: JinaBert) -> stages.PairsStage:
    kind = stages.PairRows(TOKENS, FIRST, SECOND, FAMILY, "translation")
    return stages.PairsStage(network, [kind], Pairs(batch_size=8, temperature=0.1), 5)


def test_a_batch_follows_from_the_step_alone(network: JinaBert, encoded: Encoded) -> None:
    stage, rows = pairs_stage(network), []
    for step in (0, 1, 0):
        stage.loss(step)
        rows.append(encoded.rows)
    pairs_stage(network).loss(1)
    assert rows[0] == rows[2] != rows[1] == encoded.rows


def test_stage_two_is_infonce_both_ways_with_a_family_once(
    network: JinaBert, encoded: Encoded
) -> None:
    stage = pairs_stage(network)
    for step in range(5):
        loss = stage.loss(step).item()
        queries, passages = encoded.vectors[:8], encoded.vectors[8:]
        assert abs(loss - forward.pairs(queries, passages, 0.1)) <= 1e-10
        first = encoded.rows[:8]
        assert encoded.rows[8:] == [row + COUNT for row in first]
        assert len(set(FAMILY[first])) == 8


KINDS = [
    ("translation", 4),
    ("translation", 16),
    ("title", 9),
    ("keyword", 25),
    ("pair", 25),
    ("word", 900),
]


def test_kinds_of_pairs_are_drawn_by_the_recipes_shares_and_the_root_of_their_sizes() -> None:
    kinds, numbers = zip(*KINDS, strict=True)
    shares = stages.shares(numbers, kinds, Pairs(words=0.5, parallel=0.3, titles=0.6))
    assert shares == pytest.approx([0.05, 0.1, 0.21, 0.07, 0.07, 0.5])


@given(
    st.lists(
        st.tuples(st.sampled_from(["word", "translation", "title", ""]), st.integers(1, 60)),
        min_size=1,
    ),
    st.sampled_from([0, 0.2, 1]),
    st.sampled_from([0, 0.3, 1]),
    st.sampled_from([0, 0.6, 1]),
)
def test_what_is_absent_leaves_its_share_to_the_rest(
    drawn: list[tuple[str, int]], words: float, parallel: float, titles: float
) -> None:
    kinds, numbers = zip(*drawn, strict=True)
    recipe = Pairs(words=words, parallel=parallel, titles=titles)
    whole = {
        "word": words,
        "translation": (1 - words) * parallel,
        "title": (1 - words) * (1 - parallel) * titles,
        "": (1 - words) * (1 - parallel) * (1 - titles),
    }
    drawable = {kind for kind, _ in drawn if whole[kind]}
    shares = stages.shares(numbers, kinds, recipe)
    assert shares.sum() == pytest.approx(1 if drawable else 0)
    for kind, given_share in whole.items():
        share = sum(s for k, s in zip(kinds, shares, strict=True) if k == kind)
        if kind not in drawable:
            assert share == 0
        elif drawable == {name for name, each in whole.items() if each}:
            assert share == pytest.approx(given_share)
        else:
            assert share >= given_share - 1e-12


def multi_task(network: JinaBert, **numbers: Any) -> stages.MultiTaskStage:
    recipe = MultiTask(retrieval_batch=8, negatives=3, similarity_batch=16, **numbers)
    negatives = np.stack([np.roll(SECOND, shift) for shift in range(3, 9)], 1)
    scores = np.random.default_rng(1).random(COUNT).astype(np.float32)
    retrieval = stages.QueryRows(TOKENS, FIRST, SECOND, negatives, FAMILY)
    graded = stages.GradedRows(TOKENS, FIRST, SECOND, scores)
    return stages.MultiTaskStage(network, [retrieval], [graded], recipe, 5)


@pytest.mark.parametrize("similarity", ["pearson", "squared", "none"])
def test_stage_three_alternates_hard_negatives_and_the_similarity_loss(
    network: JinaBert, encoded: Encoded, similarity: str
) -> None:
    stage = multi_task(network, similarity=similarity)
    scores = np.random.default_rng(1).random(COUNT).astype(np.float32)
    for step in range(4):
        loss, vectors = stage.loss(step).item(), encoded.vectors
        if similarity != "none" and step % 2:
            assert len(vectors) == 32
            q, p, t = vectors[:16], vectors[16:], scores[encoded.rows[:16]]
            cosines = np.diag(forward.cosines(q, p))
            squared = float(np.mean((cosines - t) ** 2))
            expected = forward.correlation(q, p, t) if similarity == "pearson" else squared
        else:
            assert len(vectors) == 8 + 8 + 8 * 3
            q, p, n = vectors[:8], vectors[8:16], vectors[16:].reshape(8, 3, 16)
            expected = forward.hard_negatives(q, p, n, 0.05)
            assert len(set(FAMILY[encoded.rows[:8]])) == 8
        assert abs(loss - expected) <= 1e-7  # scores are float32


def test_a_batch_of_graded_pairs_has_different_scores() -> None:
    scores = np.zeros(5_000, np.float32)
    scores[123] = 0.25
    for seed in range(20):
        rows = stages.stratified(scores, 16, np.random.default_rng(seed))
        assert len(rows) == 16
        assert set(scores[rows]) == {0.0, 0.25}
    even = np.linspace(0, 1, 160).astype(np.float32)
    rows = stages.stratified(even, 16, np.random.default_rng(1))
    assert (rows // 10).tolist() == list(range(16))


def test_matryoshka_trains_the_first_numbers_too(network: JinaBert, encoded: Encoded) -> None:
    loss = multi_task(network, matryoshka=True).loss(0).item()
    q, p, n = np.split(encoded.vectors, [8, 16])
    own = n.reshape(8, 3, 16)
    parts = [forward.hard_negatives(q[:, :w], p[:, :w], own[..., :w], 0.05) for w in (16, 8, 4, 2)]
    assert abs(loss - np.mean(parts)) <= 1e-10


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_stage_one_masks_the_recipes_share_and_asks_for_what_was_there(
    network: JinaBert, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    chosen, targets, own = [], [], stages.mask_words

    def recording(ids: NDArray[np.int64], *rest: Any) -> Any:
        masked, picked = own(ids, *rest)
        chosen.append(picked[ids >= 5].mean())
        targets.append((ids[picked], masked[picked]))
        return masked, picked

    monkeypatch.setattr(stages, "mask_words", recording)
    recipe, head = Masked(share=share, batch_size=16), MaskedLanguageHead(SIZES).double()
    groups = [np.arange(COUNT), np.arange(COUNT, 2 * COUNT)]
    stage = stages.MaskedStage(network, head, TOKENS, groups, recipe, 5)
    with torch.no_grad():
        for parameter in (*network.parameters(), *head.parameters()):
            parameter.zero_()
        head.predictions.bias[7] = 3.0  # type: ignore[operator, index, union-attr]
    losses = [stage.loss(step).item() for step in range(20)]
    assert abs(np.mean(chosen) - share) < 0.05
    for loss, (wanted, shown) in zip(losses, targets, strict=True):
        assert MASK in shown
        normaliser = np.log(np.exp(3.0) + SIZES.vocabulary - 1)
        assert loss == pytest.approx(normaliser - 3.0 * np.mean(wanted == 7), abs=1e-5)
