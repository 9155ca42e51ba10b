"""Writes the graphs of one network to a folder and opens the sessions to time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.schema import FeatureSchema
from model_export.bench.floors import FLOOR_BF16, FLOORS, floors
from model_export.bench.interleave import Run
from model_export.bench.request import CHUNK, Request, known_user
from model_export.bundle import openvino
from model_export.bundle.graphs import Graphs, Precision
from model_export.bundle.manifest import INT8
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.sessions import open_session
from model_export.bundle.shortlist import quick_logits
from model_export.bundle.vectors import HistoryRows, ItemVectors, UserRow
from model_export.graphs.folded_network import FoldedNetwork
from model_export.graphs.published import shared_user
from model_export.graphs.ranker import ranker, ranker_int8, ranker_rows
from model_export.graphs.towers import context_tower, history_tower, item_tower
from model_export.graphs.user_tower import save_tables, user_tower
from training.qin import QIN

Floats = NDArray[np.float32]
FP32_OPENVINO = "folded_fp32_openvino"


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of graphs for ``FoldedModel``, without a manifest."""

    path: Path
    schema: FeatureSchema
    version: str = "unpublished"

    def graph(self, name: str) -> Path:
        return self.path / f"{name}.onnx"


def chunks(items: ItemVectors) -> list[ItemVectors]:
    """Split a list as the service does."""
    return [items.part(start, start + CHUNK) for start in range(0, len(items), CHUNK)]


def write_graphs(network: QIN, path: Path) -> Folder:
    """Write every graph of the benchmark except PyTorch's own export."""
    folded = FoldedNetwork.of(network)
    pixels = ranker(folded)
    writers = [item_tower(folded), history_tower(folded), pixels, ranker_int8(folded)]
    if (rows := ranker_rows(folded, pixels)) is not None:
        writers.append(rows)
    if network.schema.context:
        writers.append(context_tower(folded))
    if folded.user is not None:
        writers.append(user_tower(folded))
        save_tables(folded, path)
    for writer in (*writers, shared_user(network), *floors(folded)):
        writer.save(path)
    return Folder(path, network.schema)


class Folded:
    """The folded network with precomputed item rows, as in the service."""

    def __init__(
        self, graphs: Graphs, threads: int, rows: NDArray[np.void], *, plugin: bool = False
    ) -> None:
        """Open the float32 ranker, the int8 one where ``graphs`` have it, and with ``plugin`` those
        on OpenVINO, in float32 and, where the processor has it, in bfloat16."""
        has_int8 = graphs.graph(INT8).exists()
        self.model = FoldedModel(graphs, threads=threads, precision="int8" if has_int8 else "fp32")
        self.precisions: tuple[Precision, ...] = ("fp32", "int8") if has_int8 else ("fp32",)
        self._bf16: FoldedModel | None = None
        self._openvino: FoldedModel | None = None
        if plugin:
            self._openvino = FoldedModel(graphs, threads=threads, provider="openvino")
        if plugin and openvino.has_bf16():
            self._bf16 = FoldedModel(graphs, threads=threads, precision="bf16", provider="openvino")
            self.precisions = (*self.precisions, "bf16")
        self.rows, self.items = rows, self.model.items(rows)
        self.user = self.model.user(*known_user(graphs.schema))  # of every request

    def prepare(self, request: Request) -> tuple[ItemVectors, HistoryRows]:
        past = self.items.vector[request.history]
        return self.items.take(request.candidates), self.model.history(past)

    def model_in(self, precision: Precision) -> FoldedModel:
        """The model that computes in this precision, and has its error bound."""
        return self._bf16 if precision == "bf16" and self._bf16 else self.model

    def logits(self, items: ItemVectors, history: HistoryRows, precision: Precision) -> Floats:
        """(C,), in chunks, as in the service."""
        model = self.model_in(precision)
        return np.concatenate(
            [model.logits(part, history, precision, self.user) for part in chunks(items)]
        )

    def quick_logits(
        self, items: ItemVectors, history: HistoryRows, precision: Precision
    ) -> Floats:
        """Those of a shortlist."""
        model = self.model_in(precision)
        return np.concatenate(
            [quick_logits(model, part, history, self.user) for part in chunks(items)]
        )

    def probabilities(self, items: ItemVectors, history: HistoryRows) -> Floats:
        """(C,) in float32, in chunks."""
        return np.concatenate(
            [self.model.exact(part, history, self.user) for part in chunks(items)]
        )

    def rescored(self, items: ItemVectors, history: HistoryRows) -> tuple[Floats, Floats]:
        """float32 probability (C,) and logit (C,), in chunks."""
        parts = [self.model.rescore(part, history, self.user) for part in chunks(items)]
        probability, logit = zip(*parts, strict=True)
        return np.concatenate(probability), np.concatenate(logit)

    def runs(self, request: Request) -> dict[str, Run]:
        """Runs of the ranker in each precision, and of the towers on this request's items."""
        items, history = self.prepare(request)
        asked, past = self.rows[request.candidates], self.items.vector[request.history]
        runs: dict[str, Run] = {
            f"folded_{precision}": lambda p=precision: self.logits(items, history, p)  # type: ignore[misc]
            for precision in self.precisions
        }
        if (other := self._openvino) is not None:
            runs[FP32_OPENVINO] = lambda: [
                other.logits(part, history, "fp32", self.user) for part in chunks(items)
            ]
        runs["item_tower"] = lambda: self.model.items(asked)
        runs["history_tower"] = lambda: self.model.history(past)
        return runs


class Floors:
    """The large products alone, in chunks."""

    def __init__(self, folder: Folder, threads: int, *, bf16: bool = False) -> None:
        self.width = folder.schema.network_width
        self.sessions = {name: open_session(folder.graph(name), threads) for name in FLOORS}
        if bf16:
            graph = folder.graph("floor_fp32")
            self.sessions[FLOOR_BF16] = open_session(graph, threads, "openvino", bf16=True)

    def runs(self, candidates: int) -> dict[str, Run]:
        x = np.random.default_rng(0).normal(0, 0.3, (candidates, self.width)).astype(np.float32)
        rows = [x[start : start + CHUNK] for start in range(0, candidates, CHUNK)]
        pixels = [np.ascontiguousarray(part.T)[None, :, None, :] for part in rows]

        def run(name: str, inputs: list[Floats]) -> Run:
            session = self.sessions[name]
            return lambda: [session.run(None, {"x": part}) for part in inputs]

        given = {name: pixels if name.endswith("conv") else rows for name in self.sessions}
        return {name: run(name, inputs) for name, inputs in given.items()}


class SharedUser:
    """The unfolded network with the user's side computed once for all candidates."""

    def __init__(self, folder: Folder, threads: int) -> None:
        self.names = [feature.name for feature in folder.schema.context]
        self.session = open_session(folder.graph("shared_user"), threads)

    def run(self, items: ItemVectors, history: Floats, user: UserRow | None) -> Run:
        """items (C), history (L, D), user: of the same network."""
        feeds = []
        for part in chunks(items):
            feed: dict[str, NDArray[Any]] = {"vector": part.vector, "history": history}
            if user is not None:
                feed["user"] = user.vector.repeat(len(part), 0)
            for column, name in enumerate(self.names):
                feed[name] = np.ascontiguousarray(part.context[:, column])
            feeds.append(feed)
        return lambda: [self.session.run(None, feed) for feed in feeds]
