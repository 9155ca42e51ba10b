"""Folds a trained network into the graphs' constants, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from feature_store.schema import Categorical, FeatureSchema
from model_export.graphs import folds as fold
from model_export.graphs.folds import Matrix, Vector
from training.qin import QIN, QuadraticLayer, Standardised


@dataclass(frozen=True, slots=True)
class FoldedLayer:
    """x ← x + LeakyRelu(x ⊙ (weight·x + bias) + offset)."""

    weight: Matrix  # (X, X)
    bias: Vector  # (X,)
    offset: Vector  # (X,)
    slope: float


@dataclass(frozen=True, slots=True)
class FoldedContext:
    """One context feature: its embedding and its share of the first layer, a row per level."""

    feature: Categorical
    embedding: Matrix  # (vocabulary, width)
    row: Matrix  # (vocabulary, X)


@dataclass(frozen=True, slots=True)
class FoldedUser:
    """User and request features: their embeddings [u | r], and its share of the first layer."""

    tables: dict[str, NDArray[Any]]  # categorical: (vocabulary, width) as trained, in float32;
    # dense: P (width, size); numeric: (width,)
    means: dict[str, float]  # of numeric features
    row: Matrix  # (X, W): row·[u | r]


@dataclass(frozen=True, slots=True)
class FoldedNetwork:
    schema: FeatureSchema
    item_tables: dict[str, Matrix]  # categorical: (vocabulary, width); dense: P (width, size)
    target_row: Matrix  # (X, D): an item's row is target_row·t + row_bias
    row_bias: Vector  # (X,)
    keys: Matrix  # (D, D)
    values: Matrix  # (D, D)
    history_rows: Matrix  # (X, D): w_j = A₀p v_j
    context: tuple[FoldedContext, ...]
    first_offset: Vector  # (X,)
    first_slope: float
    layers: tuple[FoldedLayer, ...]  # the second quadratic layer onwards
    fc: Vector  # (X,)
    bias: float
    user: FoldedUser | None = None  # where the schema has user or request features
    output_bias: Vector | None = None  # (D,): b_o of pool = Σ a_j v_j + t + b_o

    @classmethod
    def of(cls, network: QIN) -> FoldedNetwork:
        """Fold a network's weights and running statistics."""
        schema, attention = network.schema, network.attention
        first, *others = (_fold_layer(layer) for layer in network.layers)  # type: ignore[arg-type]
        blocks = fold.first_layer(first.weight, schema.context_widths, schema.item_vector_width)
        apart = len(schema.user) + len(schema.request)  # of c: one row per request
        bias, b_o = first.bias, None
        if attention.W_o.bias is not None:
            b_o = _float64(attention.W_o.bias)
            bias = fold.output_bias(blocks.pooled, b_o, bias)
        values = fold.attention_values(
            _float64(attention.W_o.weight), _float64(attention.W_v.weight)
        )
        context = []
        for feature, block in zip(schema.context, blocks.context[apart:], strict=True):
            embedding = _weight(network.context[feature.name])
            context.append(FoldedContext(feature, embedding, embedding @ block.T))
        return cls(
            schema=schema,
            item_tables={
                f.name: _weight(network.item_vector.embedding[f.name]) for f in schema.item
            },
            target_row=blocks.target,
            row_bias=bias,
            keys=fold.attention_keys(
                _float64(attention.W_q.weight), _float64(attention.W_k.weight)
            ),
            values=values,
            history_rows=blocks.pooled @ values,
            context=tuple(context),
            first_offset=first.offset,
            first_slope=first.slope,
            layers=tuple(others),
            fc=_float64(network.fc.weight)[0],
            bias=float(network.fc.bias.detach()),
            user=_fold_user(network, blocks.context[:apart]) if apart else None,
            output_bias=b_o,
        )

    def calibrated(self, slope: float, intercept: float) -> FoldedNetwork:
        """Fold Platt scaling, the logit slope·logit + intercept, into the last layer."""
        fc, bias = fold.calibration(self.fc, self.bias, slope, intercept)
        return replace(self, fc=fc, bias=bias)


def _fold_user(network: QIN, blocks: tuple[Matrix, ...]) -> FoldedUser:
    tables: dict[str, NDArray[Any]] = {}
    means: dict[str, float] = {}
    vectors = network.user_vector, network.request_vector
    for name, module in (pair for vector in vectors for pair in vector.embedding.items()):
        match module:
            case Standardised():
                deviation = float(module.deviation)
                tables[name] = fold.standardised(_weight(module.projection), deviation)
                means[name] = float(module.mean)
            case nn.Embedding():  # may be large
                tables[name] = module.weight.detach().cpu().numpy()
            case _:
                tables[name] = _weight(module)
    return FoldedUser(tables, means, fold.user_row(blocks))


def _fold_layer(layer: QuadraticLayer) -> FoldedLayer:
    weight, bias = fold.rows(
        _float64(layer.linear.weight), _float64(layer.linear.bias), layer.width
    )
    norm = layer.norm
    weight, bias, offset = fold.batch_norm(
        weight,
        bias,
        gamma=_float64(norm.weight),
        beta=_float64(norm.bias),
        mean=_float64(norm.running_mean),
        variance=_float64(norm.running_var),
        epsilon=norm.eps,
    )
    return FoldedLayer(weight, bias, offset, float(layer.activation.weight.detach()))


def _weight(module: nn.Module) -> Matrix:
    assert isinstance(module, nn.Embedding | nn.Linear)
    return _float64(module.weight)


def _float64(tensor: Tensor | None) -> Matrix:
    assert tensor is not None
    return tensor.detach().cpu().numpy().astype(np.float64)
