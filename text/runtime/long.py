"""Runs the graph for one long text: memory grows with its length, not with its square."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model_export.bundle.errors import BundleError, said
from model_export.bundle.sessions import open_session
from text.runtime.bundle import REBUILD, check_graph
from text.runtime.packed_graph import CONTENT, EMBEDDING, Call, here
from text.runtime.windows import ALL, SPARE, Certificate


@dataclass(frozen=True, slots=True, eq=False)
class LongAnswer:
    """One text's vector, its tokens' vectors where they were asked for, what was left out."""

    vector: NDArray[np.float32]  # (W,): unit length, followed by the content if there is one
    token: NDArray[np.float32] | None  # (L, D)
    certificate: Certificate


class LongGraph:
    """``encoder.long.onnx``, opened by the first long text; safe to use from several threads.

    ``content``: each vector is followed by the text's content, as in ``PackedGraph``.
    """

    def __init__(
        self, graph: Path, threads: int = 1, *, content: bool = False, through: Call = here
    ) -> None:
        """``through`` is what calls the graph."""
        self._graph, self._threads, self._through = graph, threads, through
        self._names = [EMBEDDING, CONTENT] if content else [EMBEDDING]
        self._opened: onnxruntime.InferenceSession | None = None
        self._opening = threading.Lock()
        self._options = onnxruntime.RunOptions()
        # Memory is given back after each text: long ones are rare.
        self._options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")

    @property
    def _session(self) -> onnxruntime.InferenceSession:
        with self._opening:
            if self._opened is None:
                opened = open_session(self._graph, self._threads, remedy=REBUILD)
                check_graph(self._graph, opened, {"ids", "spare"}, self._names)
                self._opened = opened
            return self._opened

    def encode(
        self, ids: NDArray[np.int32], *, tokens: bool = False, windows: bool = True
    ) -> LongAnswer:
        """Encode one text's ids (L,), with all keys for every query if not ``windows``.

        Raises BundleError where the graph cannot be opened, or fails.
        """
        spare = SPARE if windows else ALL
        certified = ["bound", "window", "pairs"]
        names = [*certified, *(["token"] if tokens else []), *self._names]
        inputs = {"ids": ids.astype(np.int64), "spare": np.array(spare, np.float32)}
        session = self._session
        try:
            found = self._through(session.run, names, inputs, self._options)
        except Exception as error:  # onnxruntime's own exceptions share no base but Exception
            raise BundleError(f"{self._graph}: fails: {said(error)}; {REBUILD}") from error
        bound, window, pairs, *others = found
        token = others.pop(0) if tokens else None
        share = pairs / len(ids) ** 2
        certificate = Certificate(bound, np.minimum(window, len(ids)), share, spare)
        return LongAnswer(np.concatenate(others), token, certificate)
