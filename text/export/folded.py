"""Folds an encoder's weights exactly, in float64, as the graphs use them.

What is folded: the type vector and the first norm into the table of tokens; 1/√d into the queries;
the bias of keys, which adds the same to every logit of a query, into nothing; the bias of values,
whose weights sum to one, into that of the output; products of the first layer into tables.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from text.encoder.jinabert import JinaBert
from text.encoder.sizes import EncoderSizes

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Linear:
    """x @ weight + bias."""

    weight: Floats  # (inputs, outputs)
    bias: Floats | None = None  # (outputs,)

    def __call__(self, x: Floats) -> Floats:
        y: Floats = x @ self.weight
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer norm over the last axis."""

    weight: Floats
    bias: Floats
    epsilon: float

    def __call__(self, x: Floats) -> Floats:
        centred = x - x.mean(-1, keepdims=True)
        variance = np.square(centred).mean(-1, keepdims=True)
        normalised: Floats = centred / np.sqrt(variance + self.epsilon) * self.weight + self.bias
        return normalised

    def scaled(self, factor: float) -> Norm:
        return Norm(self.weight * factor, self.bias * factor, self.epsilon)


@dataclass(frozen=True, slots=True)
class FoldedLayer:
    """One transformer layer. ``gate`` is activated, ``up`` is multiplied with it."""

    query: Linear  # holds 1/√d, unless its norm does
    key: Linear
    value: Linear
    query_norm: Norm | None
    key_norm: Norm | None
    out: Linear  # with the bias of the values
    out_norm: Norm
    gate: Linear
    up: Linear
    down: Linear
    down_norm: Norm
    again: Norm | None  # code variant: x is added to ``out_norm``'s output again, under this norm


@dataclass(frozen=True, slots=True)
class FoldedEncoder:
    """An encoder's weights as its graphs use them."""

    sizes: EncoderSizes
    tokens: Floats  # (V, D), normalised: what enters the first layer
    layers: tuple[FoldedLayer, ...]

    @classmethod
    def of(cls, network: JinaBert) -> FoldedEncoder:
        """Fold a network's weights."""
        sizes = network.sizes
        state = {name: x.detach().double().numpy() for name, x in network.state_dict().items()}
        types = state["embeddings.token_type_embeddings.weight"]
        norm = _norm(state, "embeddings.LayerNorm", sizes)
        tokens = norm(state["embeddings.word_embeddings.weight"] + types[0])
        layers = (_layer(state, f"encoder.layer.{i}", sizes) for i in range(sizes.layers))
        return cls(sizes, tokens, tuple(layers))


def _layer(state: dict[str, Floats], at: str, sizes: EncoderSizes) -> FoldedLayer:
    is_code = sizes.variant == "code"
    attention = f"{at}.attention.self"
    query, key, value = (_linear(state, f"{attention}.{n}") for n in ("query", "key", "value"))
    query_norm = key_norm = None
    scale = 1 / math.sqrt(sizes.hidden // sizes.heads)
    if sizes.variant == "base":
        assert query.bias is not None
        query = Linear(query.weight * scale, query.bias * scale)
        key = Linear(key.weight)
    else:
        query_norm = _norm(state, f"{attention}.layer_norm_q", sizes).scaled(scale)
        key_norm = _norm(state, f"{attention}.layer_norm_k", sizes)
    out = _linear(state, f"{at}.attention.output.dense")
    assert value.bias is not None
    assert out.bias is not None
    gated = state[f"{at}.mlp.{'up_gated_layer' if is_code else 'gated_layers'}.weight"].T
    first, second = np.split(gated, 2, axis=1)  # (D, I) each
    return FoldedLayer(
        query=query,
        key=key,
        value=Linear(value.weight),
        query_norm=query_norm,
        key_norm=key_norm,
        out=Linear(out.weight, out.bias + value.bias @ out.weight),
        out_norm=_norm(state, f"{at}.attention.output.LayerNorm", sizes),
        gate=Linear(second if is_code else first),
        up=Linear(first if is_code else second),
        down=_linear(state, f"{at}.mlp.{'down_layer' if is_code else 'wo'}"),
        down_norm=_norm(state, f"{at}.{'layer_norm_2' if is_code else 'mlp.layernorm'}", sizes),
        again=_norm(state, f"{at}.layer_norm_1", sizes) if is_code else None,
    )


def _linear(state: dict[str, Floats], name: str) -> Linear:
    return Linear(state[f"{name}.weight"].T, state.get(f"{name}.bias"))


def _norm(state: dict[str, Floats], name: str, sizes: EncoderSizes) -> Norm:
    return Norm(state[f"{name}.weight"], state[f"{name}.bias"], sizes.norm_epsilon)
