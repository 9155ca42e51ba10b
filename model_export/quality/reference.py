"""Evaluates the folded constants with numpy, by the formulas of the graphs.

In float64 it checks the folds against the network; in float32, with sums in random orders, it
estimates the rounding that a network's answers carry (docs/model-export.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.schema import Categorical, CategoricalList, Dense, Numeric
from model_export.bundle.golden import Golden, GoldenRequest
from model_export.graphs.context_tables import ContextTable, context_tables
from model_export.graphs.folded_network import FoldedNetwork
from model_export.quality.golden_cases import known, network_items

ORDERS = 8  # of the sums, in float32
Array = NDArray[Any]  # float64 or float32
Floats = NDArray[np.float64]


def exact_answers(network: FoldedNetwork, golden: Golden) -> Floats:
    """(ΣC,) probabilities of the folded constants in float64."""
    return _Evaluation(network, np.dtype(np.float64)).answers(golden)


def rounding(network: FoldedNetwork, golden: Golden, exact: Floats) -> Floats:
    """(ΣC,) worst |Δp| of float32 from ``exact`` over ``ORDERS`` orders of summation."""
    worst = np.zeros_like(exact)
    for seed in range(ORDERS):
        order = np.random.default_rng(seed)
        rounded = _Evaluation(network, np.dtype(np.float32), order).answers(golden)
        worst = np.maximum(worst, np.abs(rounded - exact))
    return worst


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """Evaluates in ``dtype``; ``order`` permutes the terms of each matrix product."""

    network: FoldedNetwork
    dtype: np.dtype[Any]
    order: np.random.Generator | None = None

    def answers(self, golden: Golden) -> Floats:
        with np.errstate(over="ignore", invalid="ignore"):  # non-finite answers are judged
            return np.concatenate(list(self._answers(golden))).astype(np.float64)

    def _answers(self, golden: Golden) -> Iterator[Array]:
        network = self.network
        vectors = self._vectors(golden)
        rows = self._product(vectors, network.target_row.T) + self._of(network.row_bias)
        tables = list(context_tables(network.context))
        for request in golden.requests():
            past, chosen = vectors[request.history], request.candidates
            logit = self._logits(
                vectors[chosen],
                rows[chosen],
                past,
                self._levels(tables, request.context),
                self._user(request),
            )
            yield 1 / (1 + np.exp(-logit))

    def _logits(
        self,
        target: Array,
        row: Array,
        past: Array,
        levels: list[tuple[ContextTable, Array]],
        user: Array,
    ) -> Array:
        network = self.network
        if network.user is not None:
            row = row + self._product(user, network.user.row.T)
        for table, index in levels:
            row = row + self._of(table.row[index])
        keys = self._product(past, network.keys.T)
        values = self._product(past, network.values.T)
        rows = self._product(past, network.history_rows.T)
        weight = np.maximum(self._product(target, keys.T), 0)  # (C, L)
        pool = self._product(weight, values) + target
        if network.output_bias is not None:
            pool = pool + self._of(network.output_bias)
        embedded = [self._of(table.embedding[index]) for table, index in levels]
        embedded.insert(0, np.repeat(user, len(target), axis=0))
        x = np.concatenate([*embedded, target, pool], axis=1)
        h = self._product(weight, rows) + row
        x = self._residual(x, h, network.first_offset, network.first_slope)
        for layer in network.layers:
            h = self._product(x, layer.weight.T) + self._of(layer.bias)
            x = self._residual(x, h, layer.offset, layer.slope)
        return self._product(x, network.fc) + self._of(network.bias)

    def _residual(self, x: Array, h: Array, offset: Floats, slope: float) -> Array:
        z = x * h + self._of(offset)
        return x + np.where(z >= 0, z, self._of(slope) * z)

    def _vectors(self, golden: Golden) -> Array:
        schema, inputs = self.network.schema, network_items(self.network.schema, golden.items)
        tables = self.network.item_tables
        parts = [
            self._embedded(feature, tables[feature.name], inputs[feature.name].numpy()[1:])
            for feature in schema.item  # the network's first item is padding
        ]
        return np.concatenate(parts, axis=1)

    def _user(self, request: GoldenRequest) -> Array:
        """(1, W) embeddings of the user and the request."""
        schema, user = self.network.schema, self.network.user
        parts = [np.zeros((1, 0), self.dtype)]
        if user is None:
            return parts[0]
        record = np.zeros(1, schema.user_dtype) if request.user is None else request.user
        for feature in schema.user:
            value = record[feature.name]
            if not isinstance(feature, Dense):
                value = known(value, feature.vocabulary)
            parts.append(self._embedded(feature, user.tables[feature.name], value))
        for wanted in schema.request:
            given, table = request.features[wanted.name], user.tables[wanted.name]
            if isinstance(wanted, Numeric):
                mean = user.means[wanted.name]
                number = mean if np.isnan(given) else given
                parts.append(((self._of(number) - self._of(mean)) * self._of(table))[None])
            else:
                index = known(np.array([given], np.int32), wanted.vocabulary)
                parts.append(self._embedded(wanted, table, index))
        return np.concatenate(parts, axis=1)

    def _embedded(
        self, feature: Categorical | CategoricalList | Dense, table: Array, value: Array
    ) -> Array:
        """(N, …) -> (N, width)."""
        match feature:
            case Categorical():
                return self._of(table[value])
            case CategoricalList():
                # As in the network, a float32 count: 1e-12 only avoids 0 / 0.
                used = (value != 0).sum(1, keepdims=True).astype(np.float32) + np.float32(1e-12)
                return np.asarray(self._of(table[value]).sum(axis=1) / self._of(used))
            case _:
                return self._product(self._of(value), table.T)

    def _levels(
        self, tables: list[ContextTable], context: NDArray[np.int32]
    ) -> list[tuple[ContextTable, Array]]:
        """Each table with its row for every candidate."""
        names = [feature.name for feature in self.network.schema.context]
        found = []
        for table in tables:
            levels = [
                known(context[:, names.index(name)], vocabulary)
                for name, vocabulary in zip(table.names, table.vocabularies, strict=True)
            ]
            steps = zip(levels[1:], table.vocabularies[1:], strict=True)
            found.append(
                (table, reduce(lambda index, step: index * step[1] + step[0], steps, levels[0]))
            )
        return found

    def _product(self, a: Array, b: Array) -> Array:
        a, b = self._of(a), self._of(b)
        if self.order is not None:
            order = self.order.permutation(len(b))
            a, b = a[:, order], b[order]
        return np.asarray(a @ b)

    def _of(self, value: Array | float) -> Array:
        return np.asarray(value, self.dtype)
