"""Writes the packed graph with int8 products.

Weights are int8 with a scale per column; activations uint8 with one range a tensor, which is
measured on texts when the graph is built, so that a text's answer does not depend on its company.
The gated layer's channels are scaled to like ranges first (SmoothQuant, Xiao et al. 2023), which
costs nothing: the scales are folded into the products before and after.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.bundle.sessions import open_session
from model_export.graphs.onnx_writer import GraphWriter
from model_export.graphs.quantise import per_column
from text.export.folded import Floats, FoldedEncoder, Linear
from text.export.layers import CONTRIB, LayerWriter
from text.export.packed import write_packed
from text.export.shared_weights import save
from text.runtime.manifest import INT8
from text.runtime.packs import pack, tokens_of
from text.tokenizer import Tokens

LEVELS = 255
SAMPLED = 1000  # tokens that ranges are chosen by
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


class _ObservingWriter(LayerWriter):
    """Notes the inputs of products, to be outputs of the graph."""

    def __init__(self, graph: GraphWriter, encoder: FoldedEncoder) -> None:
        super().__init__(graph, encoder)
        self.widths: dict[str, int] = {}

    def product(self, name: str, x: str, linear: Linear) -> str:
        self.widths[x] = len(linear.weight)
        return super().product(name, x, linear)


def packed_int8(encoder: FoldedEncoder, seen: Observed, kept: Collection[str] = ()) -> GraphWriter:
    """Return the graph of ``packed.packed`` with int8 products."""
    g = GraphWriter(INT8, "The packed graph with int8 products, activations by fixed ranges.")
    inputs = (g.input(name, "int64", ["T", "R"]) for name in ("ids", "text"))
    ranges = seen.ranges(encoder, kept)
    write_packed(QuantisedWriter(g, seen.balanced(encoder, kept), ranges, kept), *inputs)
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


@dataclass(frozen=True, slots=True)
class Observed:
    """What the inputs of products were on some texts."""

    rows: dict[str, NDArray[np.float32]]  # (n, width), a sample
    most: dict[str, NDArray[np.float32]]  # (width,) largest absolute number of each channel

    def balanced(self, encoder: FoldedEncoder, kept: Collection[str]) -> FoldedEncoder:
        """Scale the gated layers' channels to one range, as their largest numbers are."""
        layers = []
        for number, layer in enumerate(encoder.layers):
            scale = self.scale(kept, number)
            up = Linear(layer.up.weight / scale)
            down = Linear(layer.down.weight * scale[:, None], layer.down.bias)
            layers.append(replace(layer, up=up, down=down))
        return replace(encoder, layers=tuple(layers))

    def scale(self, kept: Collection[str], number: int) -> Floats:
        """Return (I,), the largest number of each channel; 1 where a product is in float32."""
        most: Floats = self.most[f"{number}.gated"].astype(np.float64)
        if {f"{number}.up", f"{number}.down"} & set(kept):
            return np.ones_like(most)
        least: Floats = np.maximum(most, 1e-3 * most.max() + 1e-30)
        return least

    def ranges(self, encoder: FoldedEncoder, kept: Collection[str]) -> dict[str, Range]:
        """Choose the ranges of all products' inputs, of balanced ones as they are then."""
        rows = dict(self.rows)
        for number in range(len(encoder.layers)):
            name = f"{number}.gated"
            rows[name] = (rows[name] / self.scale(kept, number)).astype(np.float32)
        return {name: Range.of(x) for name, x in rows.items()}


def observed(encoder: FoldedEncoder, tokens: Tokens, row: int, call: int, folder: Path) -> Observed:
    """Observe all products' inputs on tokenised texts; ``folder`` is for a graph."""
    g = GraphWriter("observed", "The packed graph with the inputs of its products as outputs.")
    inputs = (g.input(name, "int64", ["T", "R"]) for name in ("ids", "text"))
    layers = _ObservingWriter(g, encoder)
    write_packed(layers, *inputs)
    for name, width in layers.widths.items():
        g.output(name, "float32", ["N", width])
    save([g], folder, "observed.weights")
    session = open_session(folder / "observed.onnx", 1)
    random = np.random.default_rng(0)
    samples: dict[str, list[NDArray[np.float32]]] = {name: [] for name in layers.widths}
    most = {name: np.zeros(width, np.float32) for name, width in layers.widths.items()}
    for each in pack(tokens.lengths.tolist(), row, call):
        laid = tokens_of(each, tokens.ids, tokens.offsets)
        own = np.flatnonzero(laid.text.reshape(-1) >= 0)
        some = random.choice(own, -(-len(own) * SAMPLED // max(len(tokens.ids), SAMPLED)), False)
        found = session.run(list(samples), {"ids": laid.ids, "text": laid.text})
        for name, x in zip(samples, found, strict=True):
            samples[name].append(x[some])
            np.maximum(most[name], np.abs(x[own]).max(0), out=most[name])
    return Observed({name: np.concatenate(parts) for name, parts in samples.items()}, most)
