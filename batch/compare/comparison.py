"""Compares two outputs of one input, in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batch.compare.labelled import Counts, Labelled
from batch.compare.outputs import Side, other_columns, pieces
from batch.compare.ranks import SAMPLED, Ranks
from batch.errors import BatchError

MOST_SEGMENTS = 100  # of a column; the rest are one
OTHERS = "(others)"
CHANGES = 41  # bins of the picture's histogram of B − A
WIDEST = 0.5


@dataclass(slots=True)
class Pair:
    """A and B on some rows."""

    a: Labelled = field(default_factory=Labelled)
    b: Labelled = field(default_factory=Labelled)


@dataclass(slots=True)
class Comparison:
    """Everything that is counted."""

    a: Side
    b: Side
    ranks: Ranks
    candidates: int = 0
    both: int = 0  # scored by both
    only: list[int] = field(default_factory=lambda: [0, 0])  # by A, by B alone
    absolute: float = 0.0
    largest: float = 0.0
    changes: Counts = field(default_factory=lambda: np.zeros(CHANGES, np.int64))
    whole: Pair = field(default_factory=Pair)
    segments: dict[str, dict[str, Pair]] = field(default_factory=dict)
    labelled: bool = False

    def facts(self) -> dict[str, Any]:
        """Return all figures, for JSON."""
        found: dict[str, Any] = {
            "a": {"output": self.a.place, "model_version": self.a.recipe["version"]},
            "b": {"output": self.b.place, "model_version": self.b.recipe["version"]},
            "other_columns": other_columns(self.a, self.b),
            "candidates": self.candidates,
            "scored_by_both": self.both,
            "scored_by_a_alone": self.only[0],
            "scored_by_b_alone": self.only[1],
            "mean_abs_difference": self.absolute / max(1, self.both),
            "largest_difference": self.largest,
            "ranks": self.ranks.facts(),
        }
        if self.labelled:
            found["labels"] = _facts(self.whole)
            found["segments"] = {
                column: {name: _facts(pair) for name, pair in sorted(values.items())}
                for column, values in self.segments.items()
            }
        return found


def compare(
    a: str, b: str, source: str, label: str | None = None, segments: Sequence[str] = ()
) -> Comparison:
    """Compare the outputs ``a`` and ``b`` of ``source``. BatchError, DataFileError."""
    if segments and label is None:
        raise BatchError("--segment: figures of segments need labels; give --label, too")
    left, right = Side.open(a), Side.open(b)
    candidates = sum(
        count for name, count in left.manifest["counts"].items() if name.startswith("items_")
    )
    ranks = Ranks(of=max(1, -(-candidates // SAMPLED)))
    found = Comparison(left, right, ranks, labelled=label is not None)
    found.segments = {column: {} for column in segments}
    for piece in pieces(left, right, source, label, segments):
        has = ~np.isnan(piece.a), ~np.isnan(piece.b)
        both = has[0] & has[1]
        found.candidates += len(piece.a)
        found.both += int(both.sum())
        found.only[0] += int((has[0] & ~has[1]).sum())
        found.only[1] += int((has[1] & ~has[0]).sum())
        change = piece.b[both].astype(np.float64) - piece.a[both]
        if len(change):
            found.absolute += float(np.abs(change).sum())
            found.largest = max(found.largest, float(np.abs(change).max()))
            found.changes += np.histogram(
                np.clip(change, -WIDEST, WIDEST), CHANGES, (-WIDEST, WIDEST)
            )[0]
        found.ranks.add(piece.group[both], piece.a[both], piece.b[both])
        if piece.labels is None:
            continue
        known = both & (piece.labels >= 0)
        _add(found.whole, piece.a[known], piece.b[known], piece.labels[known])
        for column, values in piece.segments.items():
            names = np.array(values, object)[known]
            for name in sorted(set(names)):
                pairs = found.segments[column]
                kept = name if name in pairs or len(pairs) < MOST_SEGMENTS else OTHERS
                chosen = names == name
                _add(
                    pairs.setdefault(kept, Pair()),
                    piece.a[known][chosen],
                    piece.b[known][chosen],
                    piece.labels[known][chosen],
                )
    return found


def _add(pair: Pair, a: Any, b: Any, labels: Any) -> None:
    pair.a.add(a, labels)
    pair.b.add(b, labels)


def _facts(pair: Pair) -> dict[str, Any]:
    a, b = pair.a.facts(), pair.b.facts()
    delta = None if a["auc"] is None or b["auc"] is None else b["auc"] - a["auc"]
    return {"rows": pair.a.rows, "delta_auc": delta, "a": a, "b": b}
