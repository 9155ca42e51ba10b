"""Writes the ranker: candidates against one user's history, in float32 or with int8 products.

C candidates, L history items; D item-vector width, X network width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from model_export.bundle.manifest import ROWS
from model_export.graphs import blocks
from model_export.graphs.context_tables import context_tables
from model_export.graphs.folded_network import FoldedLayer, FoldedNetwork
from model_export.graphs.onnx_writer import GraphWriter
from model_export.graphs.quantise import per_column
from model_export.graphs.towers import joint_index


class Products(Protocol):
    """The form of the quadratic layers after the first."""

    def enter(self, g: GraphWriter, x: str) -> str:
        """x (C, X) in the layout of the layers."""

    def layer(self, g: GraphWriter, name: str, x: str, layer: FoldedLayer) -> str: ...

    def logit(self, g: GraphWriter, x: str, network: FoldedNetwork) -> None:
        """Write ``logit`` (C)."""


def ranker(network: FoldedNetwork) -> GraphWriter:
    """Candidates (C), context (C) and one user's history (L) -> ``probability``, ``logit`` (C).

    ``attention`` (C, L), computed in any case, is an output, too; it is returned if requested.
    """
    return _ranker(network, "ranker", products(network))


def ranker_rows(network: FoldedNetwork, beside: GraphWriter) -> GraphWriter | None:
    """The ranker with candidates as rows, over the weights of ``beside``, the ranker as pixels.

    For OpenVINO, which has no use for pixels (docs/performance.md). None if ``ranker`` has rows.
    """
    if not isinstance(products(network), Pixels):
        return None
    return _ranker(network, ROWS, TransposedRows(), beside)


def ranker_int8(network: FoldedNetwork) -> GraphWriter:
    """The same with int8 weights in the X×X products only."""
    return _ranker(network, "ranker.int8", Int8Rows())


def products(network: FoldedNetwork) -> Products:
    """The fastest form for this network's width."""
    X, slopes = network.schema.network_width, [layer.slope for layer in network.layers]
    blocked = X % blocks.CHANNEL_BLOCK == 0 and all(slope <= 1 for slope in slopes)
    return Pixels(X) if blocked and network.layers else Rows()


def _ranker(
    network: FoldedNetwork, name: str, form: Products, beside: GraphWriter | None = None
) -> GraphWriter:
    schema = network.schema
    D, X = schema.item_vector_width, schema.network_width
    doc = "Candidates against one user's history: the click probability."
    g = GraphWriter(name, doc, beside)
    target = g.input("vector", "float32", ["C", D])
    row = g.input("row", "float32", ["C", X])  # holds the share of the context too
    for feature in schema.context:
        g.input(feature.name, "int32", ["C"])
    keys = g.input("history_keys", "float32", ["L", D])
    values = g.input("history_values", "float32", ["L", D])
    rows = g.input("history_rows", "float32", ["L", X])

    user = _user(g, network)

    pool, weight, weight_one = _attention(g, network, [target, keys, values])
    embedded = _context(g, network)
    if user:
        each = g.call(blocks.user_of_each(), [weight_one, user.vector], ["user.each"])
        embedded = each + embedded
    x = g.node("Concat", [*embedded, target, pool], "layer0.x", axis=1)  # (C, X)
    offset = g.constant("layer0.offset", network.first_offset)
    block, inputs = blocks.first_layer(), [x, weight, rows, row, offset]
    if user:
        block = blocks.first_layer_of_user()
        inputs = [x, weight_one, rows, user.row, row, offset]
    (x,) = g.call(block, inputs, ["layer0.out"], slope=network.first_slope)

    x = form.enter(g, x)
    for number, layer in enumerate(network.layers, start=1):
        x = form.layer(g, f"layer{number}", x, layer)
    form.logit(g, x, network)
    g.node("Sigmoid", ["logit"], "probability")
    g.output("probability", "float32", ["C"])
    g.output("logit", "float32", ["C"])
    g.output("attention", "float32", ["C", "L"])
    return g


class _User(NamedTuple):
    vector: str  # (1, W)
    row: str  # (1, X)


def _user(g: GraphWriter, network: FoldedNetwork) -> _User | None:
    """Add the user's inputs, where the schema has user or request features."""
    if network.user is None:
        return None
    X, W = network.user.row.shape
    return _User(
        g.input("user", "float32", [1, W]),
        g.input("user_row", "float32", [1, X]),
    )


def _attention(g: GraphWriter, network: FoldedNetwork, inputs: list[str]) -> list[str]:
    """pool (C, D), attention (C, L) and, where a bias or a user needs it, that with a one."""
    outputs = ["pool", "attention"]  # (C, D), (C, L)
    if network.output_bias is not None:
        bias = g.constant("attention.bias", network.output_bias[None])
        block = blocks.target_attention_biased()
        return g.call(block, [*inputs, bias], [*outputs, "attention.one"])
    g.call(blocks.target_attention(), inputs, outputs)
    if network.user is None:
        return [*outputs, ""]
    return outputs + g.call(blocks.column_of_ones(), ["attention"], ["attention.one"])


def _context(g: GraphWriter, network: FoldedNetwork) -> list[str]:
    """One embedding (C, width) per table of context features."""
    embedded = []
    for table in context_tables(network.context):
        label = ".".join(("context", *table.names))
        g.constant(f"{label}.embedding", table.embedding)
        inputs = [f"{label}.embedding", joint_index(g, table)]
        embedded.append(g.node("Gather", inputs, f"{label}.vector"))
    return embedded


class Rows:
    """Candidates as rows (C, X), products as Gemm."""

    def enter(self, g: GraphWriter, x: str) -> str:
        return x

    def layer(self, g: GraphWriter, name: str, x: str, layer: FoldedLayer) -> str:
        inputs = [x, *self.weights(g, name, layer)]
        inputs.append(g.constant(f"{name}.bias", layer.bias))
        inputs.append(g.constant(f"{name}.offset", layer.offset))
        return g.call(self.block(), inputs, [f"{name}.out"], slope=layer.slope)[0]

    def block(self) -> blocks.Block:
        return blocks.quadratic_rows()

    def weights(self, g: GraphWriter, name: str, layer: FoldedLayer) -> list[str]:
        return [g.constant(f"{name}.weight", layer.weight.T)]

    def logit(self, g: GraphWriter, x: str, network: FoldedNetwork) -> None:
        g.constant("fc.weight", network.fc[:, None])
        g.constant("fc.bias", np.array([network.bias]))
        g.constant("fc.column", np.array([1]))
        column = g.node("Gemm", [x, "fc.weight", "fc.bias"], "fc.logit")  # (C, 1)
        g.node("Squeeze", [column, "fc.column"], "logit")


class TransposedRows(Rows):
    """As ``Rows``, with weights as convolutions have them."""

    def block(self) -> blocks.Block:
        return blocks.quadratic_rows(transposed=True)

    def weights(self, g: GraphWriter, name: str, layer: FoldedLayer) -> list[str]:
        return [g.constant(f"{name}.weight", layer.weight)]


class Int8Rows(Rows):
    """As ``Rows`` with dynamic int8 products: weights per column, activations by their range."""

    def block(self) -> blocks.Block:
        return blocks.quadratic_int8()

    def weights(self, g: GraphWriter, name: str, layer: FoldedLayer) -> list[str]:
        weight, scale = per_column(layer.weight.T)
        return [g.constant(f"{name}.weight", weight), g.constant(f"{name}.scale", scale)]


@dataclass(frozen=True, slots=True)
class Pixels:
    """Candidates as pixels (1, X, 1, C), products as 1×1 convolutions."""

    width: int

    def enter(self, g: GraphWriter, x: str) -> str:
        ones = g.constant("pixels.ones", np.ones((self.width, 1, 1, 1)))
        return g.call(blocks.to_pixels(self.width), [x, ones], ["pixels"])[0]

    def layer(self, g: GraphWriter, name: str, x: str, layer: FoldedLayer) -> str:
        slope, rest = layer.slope, 1 - layer.slope
        inputs = [
            x,
            g.constant(f"{name}.weight", layer.weight[:, :, None, None]),
            g.constant(f"{name}.bias", layer.bias),
            g.constant(f"{name}.slope", np.full((self.width, 1, 1, 1), slope)),
            g.constant(f"{name}.slope_offset", slope * layer.offset),
            g.constant(f"{name}.rest", np.full((self.width, 1, 1, 1), rest)),
            g.constant(f"{name}.rest_offset", rest * layer.offset),
        ]
        return g.call(blocks.quadratic_pixels(self.width), inputs, [f"{name}.out"])[0]

    def logit(self, g: GraphWriter, x: str, network: FoldedNetwork) -> None:
        g.constant("fc.weight", network.fc[None, :, None, None])
        g.constant("fc.bias", np.array([network.bias]))
        g.constant("fc.pixel", np.array([0, 1, 2]))
        pixels = g.node("Conv", [x, "fc.weight", "fc.bias"], "fc.logit", kernel_shape=[1, 1])
        g.node("Squeeze", [pixels, "fc.pixel"], "logit")
