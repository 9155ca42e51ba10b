"""Writes the packed graph: rows of several texts each, without padding between them.

Tokens are position-major, (T, R): token t of row r is row t·R + r of every product's matrix. The
runtime then folds the transposes around attention into its products. Attention within a row is
masked to a text's own tokens; ALiBi sees differences of positions alone, so that it does not matter
where in a row a text begins.
"""

from __future__ import annotations

import numpy as np

from model_export.graphs.onnx_writer import GraphWriter
from text.export.content import write_content
from text.export.folded import FoldedEncoder
from text.export.layers import LayerWriter, Projected
from text.runtime.content import ContentMap

NAME = "encoder"
MASKED = -1e9  # of a logit: its exponential is 0


def packed(
    encoder: FoldedEncoder, name: str = NAME, content: ContentMap | None = None
) -> GraphWriter:
    """ids (T, R), text (T, R) -> embedding (R, S, D), unit vectors, and token (T, R, D).

    ``text`` numbers the texts of a row from 0, in any order; −1 is padding. With a map, also
    content (R, S, C).
    """
    g = GraphWriter(name, "Several texts in a row: attention within each, the mean of its tokens.")
    ids = g.input("ids", "int64", ["T", "R"])
    text = g.input("text", "int64", ["T", "R"])
    write_packed(LayerWriter(g, encoder), ids, text)
    if content is not None:
        write_content(g, content, ["R", "S"])
    return g


def write_packed(layers: LayerWriter, ids: str, text: str) -> None:
    """Write the graph with the products of ``layers``."""
    g, sizes = layers.graph, layers.encoder.sizes
    for axis in range(3):
        g.constant(f"axis{axis}", np.array([axis]))
    g.constant("rows", np.array([-1]))
    g.constant("width", np.array([-1, sizes.hidden]))
    g.constant("per_head", np.array([sizes.heads, sizes.hidden // sizes.heads]))
    g.constant("hidden", np.array([sizes.hidden]))
    shape = g.node("Shape", [ids], "shape")  # T, R
    by_head = g.node("Concat", [shape, "per_head"], "shape.heads", axis=0)  # T, R, H, D/H
    by_token = g.node("Concat", [shape, "hidden"], "shape.tokens", axis=0)  # T, R, D
    row_major = g.node("Transpose", [text], "text.rows", perm=[1, 0])  # (R, T)
    bias = _biases(layers, shape, row_major)  # (R, H, T, T)

    projected = layers.embedded(g.node("Reshape", [ids, "rows"], "ids.flat"))
    x = projected.x
    for number in range(sizes.layers):
        if number:
            projected = layers.projected(x, number)
        attended = _attention(g, projected, bias, by_head, number)
        x = layers.after_attention(attended, projected.x, number)

    token = g.node("Reshape", [x, by_token], "token")
    _means(g, token, row_major)
    g.output("embedding", "float32", ["R", "S", sizes.hidden])
    g.output("token", "float32", ["T", "R", sizes.hidden])


def _biases(layers: LayerWriter, shape: str, text: str) -> str:
    """Return (R, H, T, T): −m·|i − j| within a text, MASKED across."""
    g = layers.graph
    g.constant("zero", np.array(0))
    g.constant("one", np.array(1))
    g.constant("masked", MASKED)
    length = g.node("Gather", [shape, "zero"], "length")
    counted = g.node("Range", ["zero", length, "one"], "counted")
    position = g.node("Cast", [counted], "position", to=1)
    queries = g.node("Unsqueeze", [position, "axis1"], "position.queries")
    keys = g.node("Unsqueeze", [position, "axis0"], "position.keys")
    distance = g.node("Abs", [g.node("Sub", [queries, keys], "offset")], "distance")  # (T, T)
    linear = g.node("Mul", [layers.slopes(), distance], "bias.linear")  # (1, H, T, T)
    g.constant("queries", np.array([1, 3]))
    g.constant("keys", np.array([1, 2]))
    of_query = g.node("Unsqueeze", [text, "queries"], "text.queries")  # (R, 1, T, 1)
    of_key = g.node("Unsqueeze", [text, "keys"], "text.keys")  # (R, 1, 1, T)
    own = g.node("Equal", [of_query, of_key], "own")
    return g.node("Where", [own, linear, "masked"], "bias")


def _attention(g: GraphWriter, x: Projected, bias: str, by_head: str, number: int) -> str:
    def heads(name: str, part: str, perm: list[int]) -> str:
        split = g.node("Reshape", [part, by_head], f"{number}.{name}.split")  # (T, R, H, D/H)
        return g.node("Transpose", [split], f"{number}.{name}.heads", perm=perm)

    query = heads("query", x.query, [1, 2, 0, 3])  # (R, H, T, D/H)
    key = heads("key", x.key, [1, 2, 3, 0])  # (R, H, D/H, T)
    value = heads("value", x.value, [1, 2, 0, 3])
    product = g.node("MatMul", [query, key], f"{number}.logit.product")
    logit = g.node("Add", [product, bias], f"{number}.logit")  # (R, H, T, T)
    weight = g.node("Softmax", [logit], f"{number}.attention", axis=-1)
    mixed = g.node("MatMul", [weight, value], f"{number}.mixed")  # (R, H, T, D/H)
    moved = g.node("Transpose", [mixed], f"{number}.mixed.tokens", perm=[2, 0, 1, 3])
    return g.node("Reshape", [moved, "width"], f"{number}.attended")  # (N, D)


def _means(g: GraphWriter, token: str, text: str) -> None:
    """Write ``embedding``, the means of each text's tokens over their length."""
    g.constant("last", np.array([-1]))
    g.constant("tiny", 1e-12)
    most = g.node("ReduceMax", [text], "text.most", keepdims=0)
    number = g.node("Range", ["zero", g.node("Add", [most, "one"], "texts"), "one"], "numbers")
    each = g.node("Unsqueeze", [number, "axis1"], "numbers.column")  # (S, 1)
    of_row = g.node("Unsqueeze", [text, "axis1"], "text.middle")  # (R, 1, T)
    own = g.node("Cast", [g.node("Equal", [of_row, each], "texts.own")], "texts.share", to=1)
    by_row = g.node("Transpose", [token], "token.rows", perm=[1, 0, 2])  # (R, T, D)
    total = g.node("MatMul", [own, by_row], "total")  # (R, S, D): the norm divides by the count
    norm = g.node("ReduceL2", [total, "last"], "norm", keepdims=1)
    g.node("Div", [total, g.node("Max", [norm, "tiny"], "norm.positive")], "embedding")
