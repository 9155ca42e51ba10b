"""Writes the graphs that run before the ranker: item, context and history tower.

N items or context combinations, L history items; D item-vector width, X network width. All but the
gather of list features is rank 2, which the runtime fuses.
"""

from __future__ import annotations

import numpy as np

from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema
from model_export.graphs.blocks import Block
from model_export.graphs.context_tables import ContextTable, context_tables
from model_export.graphs.folded_network import FoldedNetwork
from model_export.graphs.onnx_writer import GraphWriter


def item_tower(network: FoldedNetwork) -> GraphWriter:
    """Item features -> ``vector`` (N, D) and its first-layer ``row`` (N, X), without context."""
    schema = network.schema
    g = GraphWriter("item_tower", "Item features to item vector and first-layer row.")
    inputs = []
    for feature in schema.item:
        table = network.item_tables[feature.name]
        match feature:
            case Categorical():
                g.input(feature.name, "int32", ["N"])
            case CategoricalList():
                g.input(feature.name, "int32", ["N", feature.slots])
            case Dense():
                g.input(feature.name, "float32", ["N", feature.size])
                table = table.T
        inputs += [feature.name, g.constant(f"{feature.name}.weight", table)]
    g.call(item_vector(schema), inputs, ["vector"])
    g.constant("row.weight", network.target_row.T)
    g.constant("row.bias", network.row_bias)
    g.node("Gemm", ["vector", "row.weight", "row.bias"], "row")  # (N, X)
    g.output("vector", "float32", ["N", schema.item_vector_width])
    g.output("row", "float32", ["N", schema.network_width])
    return g


def item_vector(schema: FeatureSchema) -> Block:
    """Item features and their tables -> vector (N, D)."""
    names = [feature.name for feature in schema.item]
    block = Block(
        "ItemVector",
        [name for feature in names for name in (feature, f"{feature}.weight")],
        ["vector"],
        "The concatenation of the item's embeddings, in schema order.",
    )
    parts = []
    for feature in schema.item:
        name = feature.name
        inputs, out = [f"{name}.weight", name], f"{name}.vector"
        match feature:
            case Categorical():
                parts.append(block.node("Gather", inputs, out))
            case CategoricalList():
                parts.append(masked_mean(block, name))
            case Dense():
                parts.append(block.node("MatMul", inputs[::-1], out))
    block.node("Concat", parts, "vector", axis=1)  # (N, D)
    return block


def masked_mean(block: Block, name: str) -> str:
    """Sum over the slots in use / (their count + 1e-12); row 0 of the table is zero."""
    slots = block.integers([1], f"{name}.slots")
    embedded = block.node("Gather", [f"{name}.weight", name], f"{name}.embedded")  # (N, S, w)
    total = block.node("ReduceSum", [embedded, slots], f"{name}.sum", keepdims=0)  # (N, w)
    used = block.node("Cast", [name], f"{name}.used", to=9)  # (N, S) bool: not padding
    ones = block.node("Cast", [used], f"{name}.ones", to=1)
    count = block.node("ReduceSum", [ones, slots], f"{name}.count", keepdims=1)  # (N, 1)
    epsilon = block.node("Constant", [], f"{name}.epsilon", value_float=1e-12)
    safe = block.node("Add", [count, epsilon], f"{name}.safe_count")
    return block.node("Div", [total, safe], f"{name}.vector")


def context_tower(network: FoldedNetwork) -> GraphWriter:
    """Context levels (N) -> ``share`` (N, X) of an item's first-layer row.

    Only for a schema with context features.
    """
    g = GraphWriter("context_tower", "Context levels to their share of the first layer.")
    for feature in network.schema.context:
        g.input(feature.name, "int32", ["N"])
    total = ""
    for table in context_tables(network.context):
        label = ".".join(table.names)
        g.constant(f"{label}.row", table.row)
        share = g.node("Gather", [f"{label}.row", joint_index(g, table)], f"{label}.share")
        total = g.node("Add", [total, share], f"{label}.total") if total else share
    g.node("Identity", [total], "share")
    g.output("share", "float32", ["N", network.schema.network_width])
    return g


def joint_index(g: GraphWriter, table: ContextTable) -> str:
    """The row of ``table`` for the combination of its features' levels."""
    index = table.names[0]
    for name, levels in zip(table.names[1:], table.vocabularies[1:], strict=True):
        g.constant(f"{name}.levels", np.array(levels, np.int32))
        shifted = g.node("Mul", [index, f"{name}.levels"], f"{name}.shifted")
        index = g.node("Add", [shifted, name], f"{name}.joint")
    return index


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
