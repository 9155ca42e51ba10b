"""The three graphs of a bundle, built node by node from a folded network.

N items, L history items, C candidates; D item-vector width, X network width. Apart from the tags'
gather everything is rank 2, which the runtime fuses; slopes are LeakyRelu, which it runs fast.
"""

from __future__ import annotations

import numpy as np

from feature_store.schema import Categorical, CategoricalList, Dense
from model_export.context_tables import context_tables
from model_export.fold import Vector
from model_export.folded import FoldedNetwork
from model_export.onnx_writer import GraphWriter


def item_tower(network: FoldedNetwork) -> GraphWriter:
    """Item features -> ``vector`` (N, D) and its first-layer ``row`` (N, X)."""
    schema = network.schema
    g = GraphWriter("item_tower", "Item features to item vector and first-layer row.")
    parts = []
    for feature in schema.item:
        name, table = feature.name, network.item_tables[feature.name]
        match feature:
            case Categorical():
                indices = g.input(name, "int32", ["N"])
                g.constant(f"{name}.embedding", table)
                parts.append(g.node("Gather", [f"{name}.embedding", indices], f"{name}.vector"))
            case CategoricalList():
                indices = g.input(name, "int32", ["N", feature.slots])
                g.constant(f"{name}.embedding", table)
                parts.append(_masked_mean(g, name, indices))
            case Dense():
                values = g.input(name, "float32", ["N", feature.size])
                g.constant(f"{name}.projection", table.T)
                parts.append(g.node("MatMul", [values, f"{name}.projection"], f"{name}.vector"))
    g.node("Concat", parts, "vector", axis=1)  # (N, D)
    g.constant("row.weight", network.target_row.T)
    g.constant("row.bias", network.row_bias)
    g.node("Gemm", ["vector", "row.weight", "row.bias"], "row")  # (N, X)
    g.output("vector", "float32", ["N", schema.item_vector_width])
    g.output("row", "float32", ["N", schema.network_width])
    return g


def _masked_mean(g: GraphWriter, name: str, indices: str) -> str:
    """Sum over the slots in use / (their count + 1e-12); row 0 of the table adds nothing."""
    g.constant(f"{name}.slots", np.array([1]))
    g.constant(f"{name}.padding", np.array(0, np.int32))
    g.constant(f"{name}.epsilon", 1e-12)
    embedded = g.node("Gather", [f"{name}.embedding", indices], f"{name}.embedded")  # (N, S, w)
    total = g.node("ReduceSum", [embedded, f"{name}.slots"], f"{name}.sum", keepdims=0)  # (N, w)
    in_use = g.node("Greater", [indices, f"{name}.padding"], f"{name}.in_use")  # (N, S)
    ones = g.node("Cast", [in_use], f"{name}.ones", to=1)
    count = g.node("ReduceSum", [ones, f"{name}.slots"], f"{name}.count", keepdims=1)  # (N, 1)
    safe = g.node("Add", [count, f"{name}.epsilon"], f"{name}.safe_count")
    return g.node("Div", [total, safe], f"{name}.vector")


def history_tower(network: FoldedNetwork) -> GraphWriter:
    """History item vectors (L, D) -> ``keys`` (L, D), ``values`` (L, D), ``rows`` (L, X)."""
    width = network.schema.item_vector_width
    g = GraphWriter("history_tower", "History item vectors to attention keys, values and rows.")
    g.input("vector", "float32", ["L", width])
    for name, matrix in (
        ("keys", network.keys),
        ("values", network.values),
        ("rows", network.history_rows),
    ):
        g.constant(f"{name}.weight", matrix.T)
        g.node("MatMul", ["vector", f"{name}.weight"], name)
        g.output(name, "float32", ["L", matrix.shape[0]])
    return g


def ranker(network: FoldedNetwork) -> GraphWriter:
    """Candidates (C), context (C) and one user's history (L) -> ``probability``, ``logit`` (C)."""
    schema = network.schema
    D, X = schema.item_vector_width, schema.network_width
    g = GraphWriter("ranker", "Candidates against one user's history: the click probability.")
    target = g.input("vector", "float32", ["C", D])
    row = g.input("row", "float32", ["C", X])
    for feature in schema.context:
        g.input(feature.name, "int32", ["C"])
    keys = g.input("history_keys", "float32", ["L", D])
    values = g.input("history_values", "float32", ["L", D])
    rows = g.input("history_rows", "float32", ["L", X])

    score = g.node("Gemm", [target, keys], "attention.score", transB=1)  # (C, L)
    weight = g.node("Relu", [score], "attention.weight")  # a_j
    pool = g.node("Gemm", [weight, values, target], "attention.pool")  # (C, D): Σ a_j v_j + t
    h = g.node("Gemm", [weight, rows, row], "layer0.history")  # (C, X): Σ a_j w_j + row
    context, h = _context(g, network, h)
    x = g.node("Concat", [*context, target, pool], "layer0.x", axis=1)  # (C, X)

    x = _quadratic(g, "layer0", x, h, network.first_offset, network.first_slope)
    for number, layer in enumerate(network.layers, start=1):
        name = f"layer{number}"
        g.constant(f"{name}.weight", layer.weight.T)
        g.constant(f"{name}.bias", layer.bias)
        h = g.node("Gemm", [x, f"{name}.weight", f"{name}.bias"], f"{name}.h")  # (C, X)
        x = _quadratic(g, name, x, h, layer.offset, layer.slope)

    g.constant("fc.weight", network.fc[:, None])
    g.constant("fc.bias", np.array([network.bias]))
    g.constant("fc.column", np.array([1]))
    column = g.node("Gemm", [x, "fc.weight", "fc.bias"], "fc.logit")  # (C, 1)
    g.node("Squeeze", [column, "fc.column"], "logit")
    g.node("Sigmoid", ["logit"], "probability")
    g.output("probability", "float32", ["C"])
    g.output("logit", "float32", ["C"])
    return g


def _context(g: GraphWriter, network: FoldedNetwork, h: str) -> tuple[list[str], str]:
    """Gather each table's embedding; add its share of the first layer to ``h``."""
    embedded = []
    for table in context_tables(network.context):
        index = table.names[0]
        for name, levels in zip(table.names[1:], table.vocabularies[1:], strict=True):
            g.constant(f"{name}.levels", np.array(levels, np.int32))
            shifted = g.node("Mul", [index, f"{name}.levels"], f"{name}.shifted")
            index = g.node("Add", [shifted, name], f"{name}.joint")
        label = ".".join(("context", *table.names))
        g.constant(f"{label}.embedding", table.embedding)
        g.constant(f"{label}.row", table.row)
        embedded.append(g.node("Gather", [f"{label}.embedding", index], f"{label}.vector"))
        share = g.node("Gather", [f"{label}.row", index], f"{label}.share")  # (C, X)
        h = g.node("Add", [h, share], f"{label}.h")
    return embedded, h


def _quadratic(g: GraphWriter, name: str, x: str, h: str, offset: Vector, slope: float) -> str:
    """x + LeakyRelu(x ⊙ h + offset), batch norm already inside ``h`` and ``offset``."""
    g.constant(f"{name}.offset", offset)
    product = g.node("Mul", [x, h], f"{name}.product")
    z = g.node("Add", [product, f"{name}.offset"], f"{name}.z")
    active = g.node("LeakyRelu", [z], f"{name}.active", alpha=slope)
    return g.node("Add", [x, active], f"{name}.out")
