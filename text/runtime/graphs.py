"""Sends short texts to the packed graph, several at a time, and long ones to that in blocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from text.runtime.long import LongGraph
from text.runtime.packed_graph import PackedGraph
from text.runtime.windows import Certificate
from text.tokenizer import Tokens


@dataclass(frozen=True, slots=True)
class Graphs:
    """The graphs of a bundle; ``most_packed`` tokens has the longest text of a row."""

    packed: PackedGraph
    long: LongGraph | None
    most_packed: int

    def vectors(self, tokens: Tokens) -> tuple[NDArray[np.float32], dict[int, Certificate]]:
        """Return (N, W), unit vectors of all texts, and certificates of the long ones."""
        is_long = tokens.lengths > self.most_packed
        if self.long is None or not is_long.any():
            return self.packed.vectors(tokens), {}
        short = np.flatnonzero(~is_long)
        found = self.packed.vectors(tokens.take(short))
        vectors = np.empty((len(tokens), found.shape[1]), np.float32)
        vectors[short] = found
        certificates = {}
        for text in np.flatnonzero(is_long).tolist():
            answer = self.long.encode(tokens.of(text))
            vectors[text], certificates[text] = answer.vector, answer.certificate
        return vectors, certificates

    def alone(self, tokens: Tokens, text: int) -> NDArray[np.float32]:
        """Return (W,), the vector of one of the texts, encoded by itself."""
        if self.long is not None and tokens.lengths[text] > self.most_packed:
            return self.long.encode(tokens.of(text)).vector
        return self.packed.alone(tokens, text)
