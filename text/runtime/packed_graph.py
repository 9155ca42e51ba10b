"""Runs the packed graph: tokenised texts in, unit vectors out, and their content."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_export.bundle.errors import BundleError, said
from model_export.bundle.sessions import open_session
from text.runtime.bundle import REBUILD, check_graph
from text.runtime.packs import Pack, pack, tokens_of
from text.tokenizer import Tokens

EMBEDDING, CONTENT = "embedding", "content"  # outputs
Call = Callable[..., Any]  # call(function, *arguments): the function's result


def here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in this thread."""
    return function(*arguments)


class PackedGraph:
    """A session, and how long its rows and runs are; safe to use from several threads.

    ``content``: each vector is followed by the text's content, W = D + C numbers; else W = D.
    """

    def __init__(
        self,
        graph: Path,
        threads: int,
        row: int,
        call: int,
        *,
        content: bool = False,
        through: Call = here,
    ) -> None:
        """``through`` is what calls the graph."""
        self._graph = graph
        self._session = open_session(graph, threads, remedy=REBUILD)
        self._row, self._call, self._through = row, call, through
        self._names = [EMBEDDING, CONTENT] if content else [EMBEDDING]
        self.widths = check_graph(graph, self._session, {"ids", "text"}, self._names)

    def vectors(self, tokens: Tokens) -> NDArray[np.float32]:
        """Return (N, W), unit vectors of all texts."""
        vectors = np.empty((len(tokens), sum(self.widths)), np.float32)
        for each in pack(tokens.lengths.tolist(), self._row, self._call):
            vectors[list(each.texts)] = self._run(each, tokens)
        return vectors

    def packs(self, lengths: NDArray[np.int64]) -> Iterator[Pack]:
        """Yield the runs that texts of such lengths take."""
        return pack(lengths.tolist(), self._row, self._call)

    def run(self, pack: Pack, tokens: Tokens) -> NDArray[np.float32]:
        """Return the vectors of a pack's texts, row by row."""
        return self._run(pack, tokens)

    def alone(self, tokens: Tokens, text: int) -> NDArray[np.float32]:
        """Return (W,), the vector of one of the texts in a row of its own."""
        vector: NDArray[np.float32]
        vector = self._run(Pack(int(tokens.lengths[text]), ((text,),)), tokens)[0]
        return vector

    def _run(self, pack: Pack, tokens: Tokens) -> NDArray[np.float32]:
        laid = tokens_of(pack, tokens.ids, tokens.offsets)
        try:
            inputs = {"ids": laid.ids, "text": laid.text}
            found = self._through(self._session.run, self._names, inputs)
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            raise BundleError(f"{self._graph}: fails: {said(error)}; {REBUILD}") from error
        vectors: list[NDArray[np.float32]] = [each[laid.row, laid.number] for each in found]
        return vectors[0] if len(vectors) == 1 else np.concatenate(vectors, axis=1)
