"""Defines what is evaluated: similarities of texts, from vectors or otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class Vectoriser(Protocol):
    """Encodes texts to unit vectors (N, D)."""

    def encode(self, texts: Sequence[str]) -> Vectors: ...


class Candidate(Protocol):
    """An encoder or a peer."""

    name: str

    def similarity(self, queries: Sequence[str], documents: Sequence[str]) -> Vectors:
        """Return similarities (Q, D) of queries to documents."""

    def pairwise(self, first: Sequence[str], second: Sequence[str]) -> Vectors:
        """Return similarities (N,) of pairs."""

    def vectors(self, texts: Sequence[str]) -> Vectors | None:
        """Return unit vectors (N, D), or None where the candidate has none."""


class Cosine:
    """Compares texts by the cosine of their vectors; each distinct text is encoded once."""

    def __init__(self, name: str, encoder: Vectoriser) -> None:
        self.name = name
        self._encoder = encoder
        self._known: dict[str, NDArray[np.float32]] = {}

    def similarity(self, queries: Sequence[str], documents: Sequence[str]) -> Vectors:
        found: Vectors = self.vectors(queries) @ self.vectors(documents).T
        return found

    def pairwise(self, first: Sequence[str], second: Sequence[str]) -> Vectors:
        found: Vectors = (self.vectors(first) * self.vectors(second)).sum(1)
        return found

    def vectors(self, texts: Sequence[str]) -> Vectors:
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            self._known.update(zip(new, self._encoder.encode(new), strict=True))
        return np.stack([self._known[text] for text in texts])
