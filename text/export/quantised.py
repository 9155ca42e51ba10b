"""Writes the packed graph with int8 products.

Weights are int8 with a scale per column; activations uint8 with one range a tensor, which is
measured on texts when the graph is built, so that a text's answer does not depend on its company.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.bundle.sessions import open_session
from model_export.graphs.onnx_writer import GraphWriter
from model_export.graphs.quantise import per_column
from text.export.folded import FoldedEncoder, Linear
from text.export.layers import CONTRIB, LayerWriter
from text.export.packed import write_packed
from text.export.shared_weights import save
from text.runtime.manifest import INT8
from text.runtime.packs import pack, tokens_of
from text.tokenizer import Tokens

LEVELS = 255
SAMPLED = 200_000  # numbers of a tensor that its range is chosen by
CLIPPED = np.linspace(1, 0.3, 29)  # shares of the whole range that are tried


@dataclass(frozen=True, slots=True)
class Range:
    """uint8 = round(x / scale) + zero."""

    scale: float
    zero: int

    @classmethod
    def of(cls, sample: NDArray[np.float32]) -> Range:
        """Choose the range with the least mean square error on a sample."""
        least, most = min(float(sample.min()), 0.0), max(float(sample.max()), 0.0)
        choices = [cls.between(share * least, share * most) for share in CLIPPED]
        return min(choices, key=lambda choice: float(np.square(choice.error(sample)).mean()))

    @classmethod
    def between(cls, least: float, most: float) -> Range:
        scale = float(np.float32(max(most - least, 1e-30) / LEVELS))
        return cls(scale, round(-least / scale))

    def error(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        levels = np.clip(np.rint(x / np.float32(self.scale)) + self.zero, 0, LEVELS)
        off: NDArray[np.float32] = (levels - self.zero) * np.float32(self.scale) - x
        return off


class QuantisedWriter(LayerWriter):
    """Adds layers with int8 products, but for those ``kept`` in float32."""

    def __init__(
        self,
        graph: GraphWriter,
        encoder: FoldedEncoder,
        ranges: Mapping[str, Range],
        kept: Collection[str] = (),
    ) -> None:
        super().__init__(graph, encoder)
        self._ranges, self._kept = ranges, kept
        self._quantised: dict[str, list[str]] = {}

    def product(self, name: str, x: str, linear: Linear) -> str:
        if name in self._kept:
            return super().product(name, x, linear)
        levels, scale = per_column(linear.weight)
        x_levels, x_scale, x_zero = self._levels(x)
        weight = self.graph.constant(f"{name}.int8", levels)
        inputs = [x_levels, weight, x_scale, self.graph.constant(f"{name}.scale", scale), x_zero]
        if linear.bias is not None:
            inputs += ["", self.graph.constant(f"{name}.bias", linear.bias)]
        return self.graph.node("MatMulIntegerToFloat", inputs, name, domain=CONTRIB)

    def _levels(self, x: str) -> list[str]:
        """Quantise x once for all products that take it."""
        if x not in self._quantised:
            own = self._ranges[x]
            scale = self.graph.constant(f"{x}.range.scale", own.scale)
            zero = self.graph.constant(f"{x}.range.zero", np.array(own.zero, np.uint8))
            levels = self.graph.node("QuantizeLinear", [x, scale, zero], f"{x}.levels")
            self._quantised[x] = [levels, scale, zero]
        return self._quantised[x]


class _Observed(LayerWriter):
    """Notes the inputs of products, to be outputs of the graph."""

    def __init__(self, graph: GraphWriter, encoder: FoldedEncoder) -> None:
        super().__init__(graph, encoder)
        self.widths: dict[str, int] = {}

    def product(self, name: str, x: str, linear: Linear) -> str:
        self.widths[x] = len(linear.weight)
        return super().product(name, x, linear)


def packed_int8(
    encoder: FoldedEncoder, ranges: Mapping[str, Range], kept: Collection[str] = ()
) -> GraphWriter:
    """Return the graph of ``packed.packed`` with int8 products."""
    g = GraphWriter(INT8, "The packed graph with int8 products, activations by fixed ranges.")
    inputs = (g.input(name, "int64", ["T", "R"]) for name in ("ids", "text"))
    write_packed(QuantisedWriter(g, encoder, ranges, kept), *inputs)
    return g


def products(encoder: FoldedEncoder) -> list[str]:
    """Names of the graph's products, in order."""
    names: list[str] = []

    class Named(LayerWriter):
        def product(self, name: str, x: str, linear: Linear) -> str:
            names.append(name)
            return super().product(name, x, linear)

    g = GraphWriter("names", "")
    write_packed(Named(g, encoder), *(g.input(name, "int64", ["T", "R"]) for name in "ab"))
    return names


def measured_ranges(
    encoder: FoldedEncoder, tokens: Tokens, row: int, call: int, folder: Path
) -> dict[str, Range]:
    """Measure the ranges of all products' inputs on tokenised texts; ``folder`` is for a graph."""
    g = GraphWriter("observed", "The packed graph with the inputs of its products as outputs.")
    inputs = (g.input(name, "int64", ["T", "R"]) for name in ("ids", "text"))
    layers = _Observed(g, encoder)
    write_packed(layers, *inputs)
    for name, width in layers.widths.items():
        g.output(name, "float32", ["N", width])
    save([g], folder, "observed.weights")
    session = open_session(folder / "observed.onnx", 1)
    random = np.random.default_rng(0)
    share = SAMPLED / max(len(tokens.ids), 1)
    samples: dict[str, list[NDArray[np.float32]]] = {name: [] for name in layers.widths}
    for each in pack(tokens.lengths.tolist(), row, call):
        laid = tokens_of(each, tokens.ids, tokens.offsets)
        own = laid.text.reshape(-1) >= 0
        names = list(samples)
        found = session.run(names, {"ids": laid.ids, "text": laid.text})
        for name, x in zip(names, found, strict=True):
            values = x[own].reshape(-1)
            some = max(1, int(share * own.sum()))
            samples[name].append(random.choice(values, min(some, len(values)), replace=False))
            samples[name].append(np.array([values.min(), values.max()], np.float32))
    return {name: Range.of(np.concatenate(parts)) for name, parts in samples.items()}
