"""The gate of another number format: its differences from float32 on the test texts of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_export.bundle.errors import BundleError, GateError
from text.corpus.corpus import Corpus
from text.evaluate.metrics import spearman
from text.runtime.manifest import LEAST_OVERLAP, MOST_RHO_LOSS, Gate
from text.tokenizer import TextTokenizer, Tokens

MOST_TEXTS, MOST_PAIRS = 2000, 3000
NEAREST = 10
LEAST_TEXTS = 30  # of few texts the nearest are nearly all, in any number format
Vectors = NDArray[np.float32]
Encode = Callable[[Tokens], Vectors]


@dataclass(frozen=True, slots=True)
class GateData:
    """Held-out texts, and graded pairs of them."""

    name: str
    texts: Tokens
    first: Tokens
    second: Tokens
    grades: NDArray[np.float64]

    @classmethod
    def of(cls, corpus: Corpus, tokenizer: TextTokenizer, longest: int) -> GateData:
        """Take texts and graded pairs of the test split, the same every time.

        Raises BundleError where it has too few texts to compare.
        """
        random = np.random.default_rng(0)
        texts = corpus.texts(split="test")["text"].to_pylist()
        if len(texts) < LEAST_TEXTS:
            raise BundleError(
                f"{corpus.folder}: {len(texts)} test texts, and the gate of int8 needs "
                f"{LEAST_TEXTS}; give a larger corpus as --data"
            )
        graded = corpus.graded(split="test")
        chosen = random.permutation(len(graded))[:MOST_PAIRS]
        some = [texts[i] for i in random.permutation(len(texts))[:MOST_TEXTS]]
        first, second = (graded[name].take(chosen).to_pylist() for name in ("text_a", "text_b"))
        return cls(
            corpus.digest,
            tokenizer.encode(some, longest),
            tokenizer.encode(first, longest),
            tokenizer.encode(second, longest),
            graded["score"].to_numpy()[chosen],
        )


def measure(data: GateData, exact: Encode, quick: Encode, kept: list[str], forced: bool) -> Gate:
    """Compare the vectors of two number formats."""
    vectors, others = exact(data.texts), quick(data.texts)
    rho = rho_float32 = None
    pairs = len(data.grades) if len(np.unique(data.grades)) > 1 else 0  # of one grade: no order
    if pairs:
        rho_float32, rho = (
            _correlation((encode(data.first) * encode(data.second)).sum(1), data.grades)
            for encode in (exact, quick)
        )
    overlap = _overlap(vectors, others)
    gate = Gate(
        passed=False,
        forced=False,
        data=data.name,
        texts=len(vectors),
        overlap=overlap,
        pairs=pairs,
        rho=rho,
        rho_float32=rho_float32,
        max_abs_error=float(np.abs(vectors - others).max()),
        kept=kept,
    )
    passed = gate.rho_loss <= MOST_RHO_LOSS and overlap >= LEAST_OVERLAP
    return gate.model_copy(update={"passed": passed, "forced": forced and not passed})


def _correlation(cosines: Vectors, grades: NDArray[np.float64]) -> float:
    """Spearman's ρ; 0 of cosines that are all equal, which order nothing."""
    found = spearman(cosines, grades)
    return 0.0 if np.isnan(found) else found


def refuse(version: str, gate: Gate, alone: Mapping[str, Gate]) -> None:
    """Raise GateError; ``alone``: the gate with one product, or layer, in int8 alone."""
    worst = sorted(alone, key=lambda name: alone[name].overlap)[:4]
    layers = ", ".join(
        f"{name} {alone[name].overlap:.3f} and {alone[name].rho_loss:.4f}" for name in worst
    )
    raise GateError(
        f"version {version} is not published: int8 differs too much: overlap of the {NEAREST} "
        f"nearest {gate.overlap:.3f} (at least {LEAST_OVERLAP:g} is required), loss of ρ "
        f"{gate.rho_loss:.4f} (at most {MOST_RHO_LOSS:g} is allowed); with one product in int8 "
        f"alone, the worst: {layers}; keep them in float32 with --keep, publish it without "
        "--int8, or with --force to accept that"
    )


def _overlap(vectors: Vectors, others: Vectors) -> float:
    """Mean share of each text's nearest, itself excluded, that both formats agree on."""
    depth = min(NEAREST, len(vectors) - 1)
    if depth < 1:
        return 1.0
    both = np.concatenate([_nearest(vectors, depth), _nearest(others, depth)], axis=1)
    same = 2 * depth - np.array([len(set(row)) for row in both.tolist()])
    return float(same.mean() / depth)


def _nearest(vectors: Vectors, depth: int) -> NDArray[np.int64]:
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    nearest: NDArray[np.int64] = np.argpartition(-cosines, depth - 1, axis=1)[:, :depth]
    return nearest
