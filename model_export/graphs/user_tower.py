"""Writes the user tower: user and request features, one row per request.

N requests; W the width of [u | r], X network width. A large embedding table is not in the graph but
in a file of the bundle, mapped and shared by the processes of a machine; the tower then takes its
rows.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from feature_store.schema import Categorical, CategoricalList, Dense, Numeric
from model_export.bundle.manifest import table_file
from model_export.graphs.blocks import Block
from model_export.graphs.folded_network import FoldedNetwork
from model_export.graphs.onnx_writer import GraphWriter
from model_export.graphs.towers import masked_mean

MAPPED_BYTES = 1 << 20  # of a float32 table; a larger one is mapped
Feature = Categorical | CategoricalList | Dense | Numeric


def is_mapped(feature: Feature) -> bool:
    """Whether a feature's table is a file of its own."""
    if isinstance(feature, Categorical | CategoricalList):
        return feature.vocabulary * feature.width * 4 > MAPPED_BYTES
    return False


def save_tables(network: FoldedNetwork, folder: Path) -> None:
    """Write the mapped tables, ``NAME.table.npy``."""
    for feature in (*network.schema.user, *network.schema.request):
        if network.user is not None and is_mapped(feature):
            table = np.ascontiguousarray(network.user.tables[feature.name], "<f4")
            np.save(folder / table_file(feature.name), table)


def user_tower(network: FoldedNetwork) -> GraphWriter:
    """User and request features -> ``user`` (N, W) and its first-layer ``user_row`` (N, X).

    Only for a schema with user or request features.
    """
    schema, user = network.schema, network.user
    assert user is not None
    features = (*schema.user, *schema.request)
    g = GraphWriter("user_tower", "User and request features to their vector and first-layer row.")
    inputs = []
    for feature in features:
        name = feature.name
        table = user.tables[name]
        if is_mapped(feature):
            inputs.append(g.input(f"{name}.vector", "float32", ["N", feature.width]))
            continue
        match feature:
            case Categorical():
                g.input(name, "int32", ["N"])
            case CategoricalList():
                g.input(name, "int32", ["N", feature.slots])
            case Dense():
                g.input(name, "float32", ["N", feature.size])
                table = table.T
            case Numeric():
                g.input(name, "float32", ["N"])
                table = table[None]
        inputs += [name, g.constant(f"{name}.weight", table)]
        if isinstance(feature, Numeric):
            inputs.append(g.constant(f"{name}.mean", user.means[name]))
    g.call(user_vector(features), inputs, ["user"])
    g.constant("user_row.weight", user.row.T)
    g.node("MatMul", ["user", "user_row.weight"], "user_row")
    g.output("user", "float32", ["N", len(user.row.T)])
    g.output("user_row", "float32", ["N", schema.network_width])
    return g


def user_vector(features: tuple[Feature, ...]) -> Block:
    """Features and their tables, or the rows of mapped ones -> user (N, W)."""
    block = Block(
        "UserVector",
        [name for feature in features for name in _inputs(feature)],
        ["user"],
        "The concatenation of the user's and the request's embeddings, in schema order.",
    )
    parts = []
    for feature in features:
        name = feature.name
        inputs, out = [f"{name}.weight", name], f"{name}.vector"
        match feature:
            case _ if is_mapped(feature):
                parts.append(out)
            case Categorical():
                parts.append(block.node("Gather", inputs, out))
            case CategoricalList():
                parts.append(masked_mean(block, name))
            case Dense():
                parts.append(block.node("MatMul", inputs[::-1], out))
            case Numeric():
                parts.append(_standardised(block, name))
    block.node("Concat", parts, "user", axis=1)  # (N, W)
    return block


def _inputs(feature: Feature) -> list[str]:
    name = feature.name
    if is_mapped(feature):
        return [f"{name}.vector"]
    mean = [f"{name}.mean"] if isinstance(feature, Numeric) else []
    return [name, f"{name}.weight", *mean]


def _standardised(block: Block, name: str) -> str:
    """(n − mean) · weight (1, width), where the weight holds 1/deviation; NaN is the mean."""
    given = block.node("IsNaN", [name], f"{name}.missing")
    value = block.node("Where", [given, f"{name}.mean", name], f"{name}.value")
    centred = block.node("Sub", [value, f"{name}.mean"], f"{name}.centred")  # (N,)
    column = block.node(
        "Unsqueeze", [centred, block.integers([1], f"{name}.axis")], f"{name}.column"
    )
    return block.node("MatMul", [column, f"{name}.weight"], f"{name}.vector")
