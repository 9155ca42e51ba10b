"""Joins context features into few tables, so that a candidate's context is one gather.

Adjacent features share a table of all their combinations while it stays small: MicroLens' 11 × 11
levels become 121 rows, which halves the passes over (C, X).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model_export.graphs.folded_network import FoldedContext
from model_export.graphs.folds import Matrix

JOINT_ROWS = 1024  # times X floats: 4 MiB at the paper's width


@dataclass(frozen=True, slots=True)
class ContextTable:
    """Row ``(i₁·n₂ + i₂)·n₃ + …`` is the combination (i₁, i₂, …) of its features' levels."""

    names: tuple[str, ...]
    vocabularies: tuple[int, ...]
    embedding: Matrix  # (Π vocabulary, Σ width)
    row: Matrix  # (Π vocabulary, X)


def context_tables(
    features: Sequence[FoldedContext], joint_rows: int = JOINT_ROWS
) -> Iterator[ContextTable]:
    """Yield tables in schema order; one of several features has at most ``joint_rows`` rows."""
    table: ContextTable | None = None
    for feature in features:
        alone = ContextTable(
            (feature.feature.name,), (feature.feature.vocabulary,), feature.embedding, feature.row
        )
        if table is not None and len(table.row) * len(alone.row) <= joint_rows:
            table = _join(table, alone)
            continue
        if table is not None:
            yield table
        table = alone
    if table is not None:
        yield table


def _join(a: ContextTable, b: ContextTable) -> ContextTable:
    first, second = (
        np.repeat(np.arange(len(a.row)), len(b.row)),
        np.tile(np.arange(len(b.row)), len(a.row)),
    )
    return ContextTable(
        a.names + b.names,
        a.vocabularies + b.vocabularies,
        np.concatenate([a.embedding[first], b.embedding[second]], axis=1),
        a.row[first] + b.row[second],
    )
