"""The three stages: each gives the loss of a step, from batches that follow from the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from text.encoder import objectives
from text.encoder.batches import Sampler, distinct, generator_of, padded, words_of
from text.encoder.jinabert import JinaBert, MaskedLanguageHead
from text.encoder.masking import mask_words
from text.encoder.recipe import PARTS, Masked, MultiTask, Pairs
from text.encoder.vectors import embed_batch
from text.tokenizer import MASK, SPECIAL, Tokens

DRAWN = 4  # candidates drawn for each place of a batch without repeated texts
OBJECTIVES = {"pearson": objectives.correlation, "squared": objectives.squared_error}


class Stage(Protocol):
    """One stage of a run."""

    name: str

    @property
    def steps(self) -> int: ...

    @property
    def learning_rate(self) -> float: ...

    def loss(self, step: int) -> Tensor:
        """Return the loss of a step, from 0."""


@dataclass(frozen=True)
class PairRows:
    """Text pairs of one kind: rows of ``tokens``, and families, one pair of each in a batch."""

    tokens: Tokens
    first: NDArray[np.int64]  # (N,)
    second: NDArray[np.int64]  # (N,)
    family: NDArray[np.int64]  # (N,)
    kind: str = ""  # translation (into another language), word, title or another


@dataclass(frozen=True)
class QueryRows:
    """Queries of one task and language pair, their passages and hard negatives."""

    tokens: Tokens
    queries: NDArray[np.int64]  # (N,)
    passages: NDArray[np.int64]  # (N,)
    negatives: NDArray[np.int64]  # (N, M)
    family: NDArray[np.int64]  # (N,)


@dataclass(frozen=True)
class GradedRows:
    """Graded pairs of one language pair."""

    tokens: Tokens
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    scores: NDArray[np.float32]


class MaskedStage:
    """Stage I: predicts masked words."""

    name = "masked"

    def __init__(
        self,
        network: JinaBert,
        head: MaskedLanguageHead,
        tokens: Tokens,
        groups: Sequence[NDArray[np.int64]],
        recipe: Masked,
        seed: int,
    ) -> None:
        self.steps, self.learning_rate = recipe.steps, recipe.learning_rate
        self._network, self._head, self._tokens, self._recipe = network, head, tokens, recipe
        self._seed = seed
        self._sampler = Sampler(tokens.lengths, tuple(groups), recipe.batch_size, seed, self.name)

    def loss(self, step: int) -> Tensor:
        rows = self._sampler.batch(step)
        ids, lengths = padded(self._tokens, rows)
        own = ids_of(ids, lengths)
        masked, chosen = mask_words(
            own.numpy(),
            words_of(self._tokens, rows),
            self._recipe.share,
            MASK,
            (len(SPECIAL), self._network.sizes.vocabulary),
            generator_of(self._seed, "masked words", step),
        )
        where = torch.arange(ids.shape[1]) < lengths[:, None]
        ids[where] = torch.from_numpy(masked)
        tokens = self._network(ids, lengths)[where]  # (N, D)
        picked = torch.from_numpy(chosen)
        with self._network.casting():
            logits = self._head(tokens[picked], self._network.embeddings.word_embeddings.weight)
        return F.cross_entropy(logits.float(), own[picked])


class PairsStage:
    """Stage II: bidirectional InfoNCE; a batch has pairs of one kind."""

    name = "pairs"

    def __init__(
        self, network: JinaBert, kinds: Sequence[PairRows], recipe: Pairs, seed: int
    ) -> None:
        self.steps, self.learning_rate = recipe.steps, recipe.learning_rate
        self._network, self._kinds, self._recipe, self._seed = network, kinds, recipe, seed
        self._shares = shares(
            [len(kind.first) for kind in kinds], [kind.kind for kind in kinds], recipe
        )

    def loss(self, step: int) -> Tensor:
        generator = generator_of(self._seed, self.name, step)
        kind = self._kinds[generator.choice(len(self._kinds), p=self._shares)]
        is_word, recipe = kind.kind == "word", self._recipe
        size = recipe.words_batch if is_word else recipe.batch_size
        drawn = generator.permutation(len(kind.first))[: DRAWN * size]
        rows = distinct(drawn, (kind.first, kind.second, kind.family), size)
        both = np.concatenate((kind.first[rows], kind.second[rows]))
        first, second = embed_batch(self._network, kind.tokens, both).chunk(2)
        return objectives.pairs(first, second, recipe.temperature)


class MultiTaskStage:
    """Stage III: retrieval with hard negatives at even steps, similarity at odd ones."""

    name = "multi_task"

    def __init__(
        self,
        network: JinaBert,
        retrieval: Sequence[QueryRows],
        similarity: Sequence[GradedRows],
        recipe: MultiTask,
        seed: int,
    ) -> None:
        self.steps, self.learning_rate = recipe.steps, recipe.learning_rate
        self._network, self._recipe, self._seed = network, recipe, seed
        self._retrieval, self._similarity = retrieval, similarity
        width = network.sizes.hidden
        self._widths = [width // part for part in PARTS] if recipe.matryoshka else [width]

    def loss(self, step: int) -> Tensor:
        generator = generator_of(self._seed, self.name, step)
        if self._recipe.similarity != "none" and step % 2:
            return self._graded(generator)
        return self._retrieved(generator)

    def _graded(self, generator: np.random.Generator) -> Tensor:
        kind = self._similarity[int(generator.integers(len(self._similarity)))]
        rows = stratified(kind.scores, self._recipe.similarity_batch, generator)
        both = np.concatenate((kind.first[rows], kind.second[rows]))
        vectors = embed_batch(self._network, kind.tokens, both).chunk(2)
        loss = OBJECTIVES[self._recipe.similarity]
        return objectives.matryoshka(
            loss, self._widths, vectors, torch.from_numpy(kind.scores[rows])
        )

    def _retrieved(self, generator: np.random.Generator) -> Tensor:
        kinds, recipe = self._retrieval, self._recipe
        sizes = np.sqrt([len(kind.queries) for kind in kinds])
        kind = kinds[generator.choice(len(kinds), p=sizes / sizes.sum())]
        drawn = generator.permutation(len(kind.queries))[: DRAWN * recipe.retrieval_batch]
        rows = distinct(drawn, (kind.queries, kind.passages, kind.family), recipe.retrieval_batch)
        chosen = generator.permuted(kind.negatives[rows], axis=1)[:, : recipe.negatives]
        texts = np.concatenate((kind.queries[rows], kind.passages[rows], chosen.ravel()))
        vectors = embed_batch(self._network, kind.tokens, texts)
        queries, passages, negatives = torch.split(vectors, [len(rows), len(rows), chosen.size])
        negatives = negatives.view(*chosen.shape, -1)
        loss = partial(_hard_negatives, temperature=recipe.temperature)
        return objectives.matryoshka(loss, self._widths, (queries, passages, negatives))


def _hard_negatives(q: Tensor, p: Tensor, n: Tensor, temperature: float) -> Tensor:
    return objectives.hard_negatives(q, p, n, temperature)


def ids_of(ids: Tensor, lengths: Tensor) -> Tensor:
    """Return the ids (N,) of a padded batch without padding."""
    return ids[torch.arange(ids.shape[1]) < lengths[:, None]]


def stratified(
    scores: NDArray[np.float32], most: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Draw pairs evenly over the ranks of their scores. Where all that are drawn are equal, the
    least and the greatest of all are in the batch: the correlation of equal scores is undefined.
    """
    order = np.argsort(scores, kind="stable")
    edges = np.linspace(0, len(order), min(most, len(order)) + 1).astype(np.int64)
    drawn = order[generator.integers(edges[:-1], edges[1:])]
    if np.ptp(scores[drawn]) == 0:
        drawn[[0, -1]] = order[[0, -1]]
    return drawn


def shares(numbers: Sequence[int], kinds: Sequence[str], recipe: Pairs) -> NDArray[np.float64]:
    """Return the probability of each kind of so many pairs, by the root of its size.

    Within words, translations, titles and the others, so that large kinds do not crowd out small
    ones (Conneau and Lample 2019).

    What is absent leaves its share to the rest; all are 0 where the recipe draws none of the kinds.
    """
    sizes = np.sqrt(np.asarray(numbers, np.float64))
    found, rest = sizes, np.ones(len(kinds), bool)
    parts = []
    for name, share in (
        ("word", recipe.words),
        ("translation", recipe.parallel),
        ("title", recipe.titles),
    ):
        own = rest & np.asarray([kind == name for kind in kinds], bool)
        rest &= ~own
        parts.append((own, rest.copy(), share))
    for own, others, share in reversed(parts):  # each share is of what the ones before leave
        of_both = _shared(found, ((own, share), (others, 1 - share)))
        found = np.where(own | others, of_both, found)
    return found


def _shared(
    sizes: NDArray[np.float64], parts: Sequence[tuple[NDArray[np.bool_], float]]
) -> NDArray[np.float64]:
    """Divide 1 among parts by their shares, and each part by sizes."""
    divided = np.zeros(len(sizes))
    for part, share in parts:
        if sizes[part].sum() > 0:
            divided[part] = share * sizes[part] / sizes[part].sum()
    total = divided.sum()
    return divided / total if total > 0 else divided
