"""Writes the parts of a graph that attend to nothing: tables, products, norms, gated layers.

Tokens are rows of one matrix (N, D), so that every product is one ``Gemm``, whichever texts they
are of. Subclass or replace ``product`` for other number formats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_export.graphs.onnx_writer import GraphWriter
from text.encoder.alibi import slopes
from text.export.folded import Floats, FoldedEncoder, FoldedLayer, Linear, Norm

CONTRIB = "com.microsoft"
MOST_TABLE_BYTES = 64 << 20  # of the first layer's products of every token, as a table


@dataclass(frozen=True, slots=True)
class Projected:
    """Names of what attention takes, each (N, D), and of the sum that it is added to."""

    query: str
    key: str
    value: str
    x: str


class LayerWriter:
    """Adds an encoder's layers to a graph; weights have the same names in every graph."""

    def __init__(self, graph: GraphWriter, encoder: FoldedEncoder) -> None:
        self.graph, self.encoder = graph, encoder
        sizes = encoder.sizes
        self.tabled = 3 * sizes.vocabulary * sizes.hidden * 4 <= MOST_TABLE_BYTES

    def embedded(self, ids: str) -> Projected:
        """ids (N,) -> the first layer's queries, keys and values, and the tokens themselves."""
        layer = self.encoder.layers[0]
        x = self._rows("tokens", self.encoder.tokens, ids)
        if not self.tabled:
            return self.projected(x, 0)
        tokens = self.encoder.tokens
        query, key = layer.query(tokens), layer.key(tokens)
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key = layer.query_norm(query), layer.key_norm(key)
        return Projected(
            self._rows("0.query.tokens", query, ids),
            self._rows("0.key.tokens", key, ids),
            self._rows("0.value.tokens", layer.value(tokens), ids),
            x,
        )

    def projected(self, x: str, number: int) -> Projected:
        """x (N, D) -> queries, keys, values of layer ``number``."""
        layer = self.encoder.layers[number]
        query = self.product(f"{number}.query", x, layer.query)
        key = self.product(f"{number}.key", x, layer.key)
        if layer.query_norm is not None and layer.key_norm is not None:
            query = self.norm(f"{number}.query_norm", query, layer.query_norm)
            key = self.norm(f"{number}.key_norm", key, layer.key_norm)
        return Projected(query, key, self.product(f"{number}.value", x, layer.value), x)

    def after_attention(self, attended: str, x: str, number: int) -> str:
        """attended (N, D), x (N, D) -> the layer's output (N, D)."""
        layer = self.encoder.layers[number]
        out = self.product(f"{number}.out", attended, layer.out)
        x = self._added_and_normed(f"{number}.out_norm", out, x, layer.out_norm, layer.again)
        down = self.product(f"{number}.down", self._gated(x, layer, number), layer.down)
        return self._added_and_normed(f"{number}.down_norm", down, x, layer.down_norm)

    def product(self, name: str, x: str, linear: Linear) -> str:
        """x (N, inputs) -> (N, outputs)."""
        inputs = [x, self.graph.constant(f"{name}.weight", linear.weight)]
        if linear.bias is not None:
            inputs.append(self.graph.constant(f"{name}.bias", linear.bias))
        return self.graph.node("Gemm", inputs, name)

    def norm(self, name: str, x: str, norm: Norm) -> str:
        """Layer norm of rows."""
        weight = self.graph.constant(f"{name}.weight", norm.weight)
        bias = self.graph.constant(f"{name}.bias", norm.bias)
        inputs = [x, weight, bias]
        return self.graph.node("LayerNormalization", inputs, name, epsilon=norm.epsilon)

    def slopes(self) -> str:
        """−m of every head, (1, H, 1, 1)."""
        values = -np.asarray(slopes(self.encoder.sizes.heads))
        return self.graph.constant("slopes", values[None, :, None, None])

    def _rows(self, name: str, table: Floats, ids: str) -> str:
        return self.graph.node("Gather", [self.graph.constant(name, table), ids], f"{name}.rows")

    def _gated(self, x: str, layer: FoldedLayer, number: int) -> str:
        gate = self.product(f"{number}.gate", x, layer.gate)
        up = self.product(f"{number}.up", x, layer.up)
        if self.encoder.sizes.activation == "gelu":
            active = self.graph.node("Gelu", [gate], f"{number}.active", domain=CONTRIB)
        else:
            active = self.graph.node("Relu", [gate], f"{number}.active")
        return self.graph.node("Mul", [active, up], f"{number}.gated")

    def _added_and_normed(
        self, name: str, y: str, x: str, norm: Norm, again: Norm | None = None
    ) -> str:
        y = self.norm(name, self.graph.node("Add", [x, y], f"{name}.sum"), norm)
        if again is None:
            return y
        return self.norm(f"{name}.again", self.graph.node("Add", [x, y], f"{name}.twice"), again)
