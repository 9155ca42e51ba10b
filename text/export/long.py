"""Writes the graph for one long text: blockwise attention in certified windows.

Each layer is a ``Scan`` over blocks of Q queries. A head of slope m sees, from each block, the keys
within D = ⌈(spare + 2B)/m⌉ of it, where B bounds |q·k|/√d of the block: what lies beyond has less
than e^−spare of a query's weight (``text.runtime.windows`` has the proof). So no tensor has L·L
numbers, and heads of steep slopes read few keys.

Keys are centred per head: q·(k − c) is q·k less one number for all keys of a query, which cancels
in the softmax, while the bound becomes smaller.
"""

from __future__ import annotations

import numpy as np

from model_export.graphs.onnx_writer import GraphWriter
from text.encoder.alibi import slopes
from text.export.content import write_content
from text.export.folded import FoldedEncoder
from text.export.layers import LayerWriter, Projected
from text.export.scan import ScanBody
from text.runtime.content import ContentMap

NAME = "encoder.long"
BLOCK = 256  # queries, Q
MARGIN = 1.0001  # of the bound, for norms rounded to float32
MOST_WINDOW = 2.0**24  # keys; float32 has no larger odd numbers
CERTIFICATE = {"bound": "float32", "window": "int64", "pairs": "int64"}


def long(
    encoder: FoldedEncoder,
    name: str = NAME,
    block: int = BLOCK,
    content: ContentMap | None = None,
) -> GraphWriter:
    """ids (L,), spare () -> embedding (D,), token (L, D), bound, window, pairs (layers, H).

    ``bound``: the largest B of a head's blocks; ``window``: its largest D; ``pairs`` of a query and
    a key that were computed. A large ``spare`` leaves out nothing. With a map, also content (C,).
    """
    g = GraphWriter(name, "One text in blocks of queries: its vector, its tokens, a certificate.")
    writer, sizes = _LongWriter(g, encoder, block), encoder.sizes
    g.input("ids", "int64", ["L"])
    g.input("spare", "float32", [])
    projected = writer.embedded(writer.padded("ids"))
    x = projected.x
    for number in range(sizes.layers):
        if number:
            projected = writer.projected(x, number)
        x = writer.layer(projected, number)
    g.node("Slice", [x, "none", "length", "none"], "token")
    mean = g.node("ReduceMean", ["token", "none"], "mean", keepdims=0)
    g.node("Div", [mean, g.node("ReduceL2", [mean], "norm", keepdims=1)], "embedding")
    g.output("embedding", "float32", [sizes.hidden])
    g.output("token", "float32", ["L", sizes.hidden])
    for output, kind in CERTIFICATE.items():
        parts = [f"{number}.{output}" for number in range(sizes.layers)]
        g.node("Concat", parts, output, axis=0)
        g.output(output, kind, [sizes.layers, sizes.heads])
    if content is not None:
        write_content(g, content, [])
    return g


class _LongWriter(LayerWriter):
    """Layers of a text padded to N whole blocks; P = N·Q. Padding is never a key."""

    def __init__(self, graph: GraphWriter, encoder: FoldedEncoder, block: int) -> None:
        super().__init__(graph, encoder)
        sizes = encoder.sizes
        self._heads, self._block = sizes.heads, block
        width = sizes.hidden // sizes.heads
        graph.constant("none", np.array([0]))
        graph.constant("one", np.array([1]))
        graph.constant("two", np.array([2]))
        graph.constant("block", np.array([block]))
        graph.constant("scalar", np.empty(0, np.int64))
        graph.constant("by_head", np.array([-1, sizes.heads, width]))
        graph.constant("by_block", np.array([-1, block, sizes.hidden]))
        graph.constant("flat", np.array([-1, sizes.hidden]))
        graph.constant("slope", np.array(slopes(sizes.heads)))
        graph.constant("margin", MARGIN)
        graph.constant("most_window", MOST_WINDOW)

    def padded(self, ids: str) -> str:
        """Return ids (P,); write ``length``, ``starts`` of the blocks, and ``distance``."""
        g = self.graph
        length = g.node("Shape", [ids], "length")  # (1,)
        g.constant("rest", np.array([self._block - 1]))
        blocks = g.node("Div", [g.node("Add", [length, "rest"], "up"), "block"], "blocks")
        padded = g.node("Mul", [blocks, "block"], "padded")
        pads = [g.node("Sub", [padded, length], "more")]
        g.node("Concat", ["none", *pads], "pads", axis=0)
        self._distance(g.node("Reshape", [padded, "scalar"], "padded.scalar"))
        return g.node("Pad", [ids, "pads"], "ids.padded")

    def _distance(self, padded: str) -> None:
        """−|r − c| (Q, 2P), for c from −P: a block's part is a slice, from any of its keys on."""
        g = self.graph
        zero, one, size = (
            g.node("Constant", [], name, value_int=value)
            for name, value in (("zero", 0), ("step", 1), ("size", self._block))
        )
        g.node("Range", [zero, padded, size], "starts")  # (N,)
        ranges = {"row": (zero, size), "column": (g.node("Neg", [padded], "left"), padded)}
        for name, (start, end) in ranges.items():
            g.node("Cast", [g.node("Range", [start, end, one], f"{name}s")], name, to=1)
        row = g.node("Unsqueeze", ["row", "one"], "row.column")
        apart = g.node("Abs", [g.node("Sub", [row, "column"], "offset")], "apart")
        g.node("Neg", [apart], "distance")

    def layer(self, x: Projected, number: int) -> str:
        """Write the layer; return its output (P, D)."""
        g = self.graph
        own = g.node("Slice", [x.key, "none", "length", "none"], f"{number}.key.own")
        centre = g.node("ReduceMean", [own, "none"], f"{number}.key.centre")
        key = g.node("Sub", [own, centre], f"{number}.key.centred")  # (L, D)
        most = self._longest(g, key, f"{number}.key")
        for name, value in (("key", key), ("value", x.value)):
            self._split(g, value, f"{number}.{name}")
        blocks = [
            g.node("Reshape", [value, "by_block"], f"{number}.{name}.blocks")
            for name, value in (("query", x.query), ("x", x.x))
        ]
        outputs = [f"{number}.{name}" for name in ("blocks", "bounds", "windows", "pair_counts")]
        body = self._body(most, number)
        g.nodes("Scan", [*blocks, "starts"], outputs, num_scan_inputs=3, body=body.graph())
        g.node("ReduceMax", [outputs[1], "none"], f"{number}.bound")  # (1, H)
        g.node("ReduceMax", [outputs[2], "none"], f"{number}.window")
        g.node("ReduceSum", [outputs[3], "none"], f"{number}.pairs")
        return g.node("Reshape", [outputs[0], "flat"], f"{number}.output")

    def _body(self, most_key: str, number: int) -> ScanBody:
        """Write a block's step: queries (Q, D), x (Q, D) and its start -> x, B, D, pairs."""
        b, at, sizes = ScanBody("block", self.graph), f"{number}.block", self.encoder.sizes
        b.input(f"{at}.query", "float32", [self._block, sizes.hidden])
        b.input(f"{at}.x", "float32", [self._block, sizes.hidden])
        b.input(f"{at}.start", "int64", [])
        most = b.node("Mul", [self._longest(b, f"{at}.query", at), most_key], f"{at}.most")
        b.node("Mul", [most, "margin"], f"{at}.bound")
        self._windows(b, at)
        self._split(b, f"{at}.query", at)
        heads = [self._head(b, at, number, h, m) for h, m in enumerate(slopes(self._heads))]
        attended = b.node("Concat", heads, f"{at}.attended", axis=1)
        out = LayerWriter(b, self.encoder).after_attention(attended, f"{at}.x", number)
        b.output(out, "float32", [self._block, sizes.hidden])
        for name, kind in (("bound", "float32"), ("window", "int64"), ("pairs", "int64")):
            b.output(f"{at}.{name}", kind, [self._heads])
        return b

    def _windows(self, b: GraphWriter, at: str) -> None:
        """B (H,) -> D (H,), the keys [low, high) of the block, and columns of ``distance``."""
        twice = b.node("Add", [f"{at}.bound", f"{at}.bound"], f"{at}.twice")
        nats = b.node("Add", [twice, "spare"], f"{at}.nats")
        reach = b.node("Ceil", [b.node("Div", [nats, "slope"], f"{at}.exact")], f"{at}.reach")
        known = b.node("Less", [reach, "most_window"], f"{at}.known")  # not where B is NaN
        whole = b.node("Where", [known, reach, "most_window"], f"{at}.whole")
        window = b.node("Cast", [whole], f"{at}.window", to=7)
        start = f"{at}.start"
        low = b.node("Max", [b.node("Sub", [start, window], f"{at}.from"), "zero"], f"{at}.low")
        end = b.node("Add", [start, "block"], f"{at}.end")
        beyond = b.node("Add", [end, window], f"{at}.beyond")
        high = b.node("Min", [beyond, "length"], f"{at}.high")
        left = b.node("Sub", ["length", start], f"{at}.left_over")
        rows = b.node("Min", [left, "block"], f"{at}.rows")  # queries that are no padding
        b.node("Mul", [b.node("Sub", [high, low], f"{at}.keys"), rows], f"{at}.pairs")
        shift = b.node("Sub", ["padded", start], f"{at}.shift")
        for name, end in (("left", low), ("right", high)):
            b.node("Add", [end, shift], f"{at}.{name}")
        for name in ("low", "high", "left", "right"):
            parts = [f"{at}.{name}.{h}" for h in range(self._heads)]
            b.nodes("Split", [f"{at}.{name}"], parts, axis=0, num_outputs=self._heads)

    def _head(self, b: GraphWriter, at: str, number: int, h: int, slope: float) -> str:
        keys = [f"{at}.low.{h}", f"{at}.high.{h}", "none"]
        key = b.node("Slice", [f"{number}.key.{h}", *keys], f"{at}.key.{h}")
        value = b.node("Slice", [f"{number}.value.{h}", *keys], f"{at}.value.{h}")
        columns = [f"{at}.left.{h}", f"{at}.right.{h}", "one"]
        bias = b.node("Slice", ["distance", *columns], f"{at}.distance.{h}")
        inputs = [f"{at}.{h}", key, bias]
        logit = b.node("Gemm", inputs, f"{at}.logit.{h}", beta=slope, transB=1)  # (Q, keys)
        weight = b.node("Softmax", [logit], f"{at}.weight.{h}")
        return b.node("MatMul", [weight, value], f"{at}.mixed.{h}")

    def _longest(self, g: GraphWriter, x: str, name: str) -> str:
        """(N, D) -> the largest Euclidean norm of each head's rows (H,)."""
        heads = g.node("Reshape", [x, "by_head"], f"{name}.heads")
        norms = g.node("ReduceL2", [heads, "two"], f"{name}.norms", keepdims=0)
        return g.node("ReduceMax", [norms, "none"], f"{name}.longest", keepdims=0)

    def _split(self, g: GraphWriter, x: str, name: str) -> None:
        parts = [f"{name}.{h}" for h in range(self._heads)]
        g.nodes("Split", [x], parts, axis=1, num_outputs=self._heads)
