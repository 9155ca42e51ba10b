"""Writes the unfolded network as an ONNX graph: the baseline of the benchmark.

As published, every candidate has its own copy of the history (C, L, D); with the user's side
shared, all use one history (L, D). Both project history items to keys and values, and keep the R
rows of each quadratic layer. The embeddings of user and request features are an input of both.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from model_export.graphs.folds import Matrix
from model_export.graphs.onnx_writer import GraphWriter
from training.qin import QIN, QuadraticLayer


def published(network: QIN) -> GraphWriter:
    """target (C, D), history (C, L, D), mask (C, L), user (C, W), context (C) -> probability."""
    schema, attention = network.schema, network.attention
    D = schema.item_vector_width
    g = GraphWriter("published", "The network as published (arXiv 2504.17699), nothing folded.")
    target = g.input("vector", "float32", ["C", D])
    history = g.input("history", "float32", ["C", "L", D])
    mask = g.input("mask", "float32", ["C", "L"])
    embedded = _context(g, network)
    query = _linear(g, "W_q", target, attention.W_q.weight)  # (C, A)
    keys = _linear(g, "W_k", history, attention.W_k.weight)  # (C, L, A)
    values = _linear(g, "W_v", history, attention.W_v.weight)  # (C, L, A)
    g.constant("last", np.array([2]))
    g.constant("middle", np.array([1]))
    g.constant("scale", attention.scale)
    column = g.node("Unsqueeze", [query, "last"], "query.column")  # (C, A, 1)
    scores = g.node("MatMul", [keys, column], "score.column")  # (C, L, 1)
    scaled = g.node("Mul", [g.node("Squeeze", [scores, "last"], "score"), "scale"], "scaled")
    weight = g.node("Mul", [g.node("Relu", [scaled], "sparse"), mask], "weight")  # (C, L)
    as_row = g.node("Unsqueeze", [weight, "middle"], "weight.row")  # (C, 1, L)
    summed = g.node("MatMul", [as_row, values], "interest.row")  # (C, 1, A)
    interest = g.node("Squeeze", [summed, "middle"], "interest")
    _from_interest(g, network, embedded, target, interest)
    return g


def shared_user(network: QIN) -> GraphWriter:
    """target (C, D), one history (L, D), user (C, W), context (C) -> probability (C)."""
    D, attention = network.schema.item_vector_width, network.attention
    g = GraphWriter("shared_user", "As published, but the user's history is projected once.")
    target = g.input("vector", "float32", ["C", D])
    history = g.input("history", "float32", ["L", D])
    embedded = _context(g, network)
    query = _linear(g, "W_q", target, attention.W_q.weight)  # (C, A)
    keys = _linear(g, "W_k", history, attention.W_k.weight)  # (L, A)
    values = _linear(g, "W_v", history, attention.W_v.weight)  # (L, A)
    g.constant("middle", np.array([1]))
    score = g.node("Gemm", [query, keys], "score", transB=1, alpha=attention.scale)  # (C, L)
    weight = g.node("Relu", [score], "weight")
    interest = g.node("MatMul", [weight, values], "interest")  # (C, A)
    _from_interest(g, network, embedded, target, interest)
    return g


def _context(g: GraphWriter, network: QIN) -> list[str]:
    schema = network.schema
    embedded = []
    if features := (*schema.user, *schema.request):
        embedded.append(g.input("user", "float32", ["C", sum(f.width for f in features)]))
    for feature in schema.context:
        g.input(feature.name, "int32", ["C"])
        table = g.constant(f"{feature.name}.table", _table(network.context, feature.name))
        embedded.append(g.node("Gather", [table, feature.name], f"{feature.name}.vector"))
    return embedded


def _from_interest(
    g: GraphWriter, network: QIN, embedded: list[str], target: str, interest: str
) -> None:
    """interest (C, A), before W_o -> the pool, the quadratic layers, ``probability`` (C)."""
    W_o = network.attention.W_o
    pool = g.node("Add", [_linear(g, "W_o", interest, W_o.weight, W_o.bias), target], "pool")
    x = g.node("Concat", [*embedded, target, pool], "x", axis=1)  # (C, X)
    for number, layer in enumerate(network.layers):
        assert isinstance(layer, QuadraticLayer)
        x = _quadratic(g, f"layer{number}", x, layer)
    logit = _linear(g, "fc", x, network.fc.weight, network.fc.bias)
    g.node("Sigmoid", [g.node("Squeeze", [logit, "middle"], "logit")], "probability")
    g.output("probability", "float32", ["C"])


def _quadratic(g: GraphWriter, name: str, x: str, layer: QuadraticLayer) -> str:
    h = _linear(g, f"{name}.linear", x, layer.linear.weight, layer.linear.bias)
    g.constant(f"{name}.shape", np.array([-1, layer.rows, layer.width]))
    g.constant(f"{name}.axis", np.array([1]))
    rows = g.node("Reshape", [h, f"{name}.shape"], f"{name}.rows")  # (C, R, X)
    total = g.node("ReduceSum", [rows, f"{name}.axis"], f"{name}.sum", keepdims=0)
    z = g.node("Mul", [x, total], f"{name}.z")
    norm = layer.norm
    statistics = []
    for label, tensor in (
        ("gamma", norm.weight),
        ("beta", norm.bias),
        ("mean", norm.running_mean),
        ("variance", norm.running_var),
    ):
        statistics.append(g.constant(f"{name}.{label}", _array(tensor)))
    z = g.node("BatchNormalization", [z, *statistics], f"{name}.norm", epsilon=norm.eps)
    g.constant(f"{name}.slope", _array(layer.activation.weight))
    z = g.node("PRelu", [z, f"{name}.slope"], f"{name}.active")
    return g.node("Add", [x, z], f"{name}.out")


def _linear(g: GraphWriter, name: str, x: str, weight: Tensor, bias: Tensor | None = None) -> str:
    g.constant(f"{name}.weight", _array(weight).T)
    out = g.node("MatMul", [x, f"{name}.weight"], f"{name}.product")
    if bias is None:
        return out
    g.constant(f"{name}.bias", _array(bias))
    return g.node("Add", [out, f"{name}.bias"], f"{name}.biased")


def _array(tensor: Tensor | None) -> Matrix:
    assert tensor is not None
    return tensor.detach().cpu().numpy().astype(np.float64)


def _table(tables: nn.ModuleDict, name: str) -> Matrix:
    table = tables[name]
    assert isinstance(table, nn.Embedding)
    return _array(table.weight)
