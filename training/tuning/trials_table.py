"""The trials of a study as rows of a table: for the console, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One finished trial. A diverged one may have no figures."""

    number: int  # from 1, in order of their ends
    state: str  # complete, pruned or diverged
    valid_auc: float | None  # of the best epoch
    valid_logloss: float | None
    best_epoch: int | None
    epochs: int
    seconds: float
    numbers: dict[str, Any] = field(default_factory=dict)  # of the recipe, by dotted name
    best: bool = False

    @property
    def score(self) -> float:
        return -1.0 if self.valid_auc is None else self.valid_auc

    def marked_best(self) -> TrialRow:
        return replace(self, best=True)


def row_of(number: int, trial: FrozenTrial) -> TrialRow:
    """Describe a trial of Optuna's."""
    known = trial.user_attrs
    values = trial.intermediate_values.values()
    return TrialRow(
        number=number,
        state={"FAIL": "diverged"}.get(trial.state.name, trial.state.name.lower()),
        valid_auc=max(values, default=None),
        valid_logloss=known.get("valid_logloss"),
        best_epoch=known.get("best_epoch"),
        epochs=known.get("epochs", 0),
        seconds=known.get("seconds", 0.0),
        numbers=dict(trial.params),
    )


FIGURES = ("state", "valid_auc", "valid_logloss", "best_epoch", "epochs", "seconds", "best")


def csv_of(rows: Sequence[TrialRow], names: Sequence[str]) -> str:
    """Write a line per trial; the recipe's numbers are the last columns."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["trial", *FIGURES, *names])
    for row in rows:
        figures = [getattr(row, name) for name in FIGURES]
        table.writerow([row.number, *figures, *(row.numbers.get(name) for name in names)])
    return text.getvalue()
