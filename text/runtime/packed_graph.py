"""Runs the packed graph: tokenised texts in, unit vectors out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.bundle.sessions import open_session
from text.runtime.bundle import REBUILD
from text.runtime.packs import Pack, pack, tokens_of
from text.tokenizer import Tokens


class PackedGraph:
    """A session, and how long its rows and runs are; safe to use from several threads."""

    def __init__(self, graph: Path, threads: int, row: int, call: int) -> None:
        self._session = open_session(graph, threads, remedy=REBUILD)
        self._row, self._call = row, call
        self._width = int(self._session.get_outputs()[0].shape[-1])

    def vectors(self, tokens: Tokens) -> NDArray[np.float32]:
        """Return (N, D), unit vectors of all texts."""
        vectors = np.empty((len(tokens), self._width), np.float32)
        for each in pack(tokens.lengths.tolist(), self._row, self._call):
            vectors[list(each.texts)] = self._run(each, tokens)
        return vectors

    def alone(self, tokens: Tokens, text: int) -> NDArray[np.float32]:
        """Return (D,), the vector of one of the texts in a row of its own."""
        vector: NDArray[np.float32]
        vector = self._run(Pack(int(tokens.lengths[text]), ((text,),)), tokens)[0]
        return vector

    def _run(self, pack: Pack, tokens: Tokens) -> NDArray[np.float32]:
        laid = tokens_of(pack, tokens.ids, tokens.offsets)
        (found,) = self._session.run(["embedding"], {"ids": laid.ids, "text": laid.text})
        vectors: NDArray[np.float32] = found[laid.row, laid.number]
        return vectors
