"""Searches recipes by Optuna: trains trials until a number of them or a time is reached."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from training.checkpoint import CheckpointError
from training.data.dataset import Rows
from training.loop.data_parallel import ProcessGroup
from training.loop.epoch_log import Epoch
from training.loop.fit import DivergedError, data_digests, fit
from training.progress import OnProgress, no_progress
from training.recipe import Recipe
from training.recipe_files import to_yaml
from training.tuning.search_space import SearchSpace, recipe_of
from training.tuning.study import FAILURE, ask, finished, opened
from training.tuning.study_plot import study_plot
from training.tuning.trials_table import TrialRow, csv_of, row_of

TRIALS, TABLE, PICTURE, BEST = "trials", "trials.csv", "study.png", "best.yaml"


class _PrunedError(Exception):
    """The trial is worse than the median at its epoch."""


class _OutOfTimeError(Exception):
    """The time for this call is over; the trial goes on in the next."""


@dataclass(frozen=True)
class Search:
    """What all trials of a study share."""

    space: SearchSpace
    base: Recipe
    train: Rows
    valid: Rows
    prune: bool = True

    @property
    def drawn(self) -> set[str]:
        """The names of numbers whose values in ``base`` have no effect; its seed draws them."""
        return self.space.dimensions.keys() - {"seed"}

    @property
    def identity(self) -> dict[str, str]:
        return {
            "space": self.space.model_dump_json(),
            "data": data_digests(self.train, self.valid),
            "recipe": self.base.model_dump_json(),
            "schema": self.train.schema.model_dump_json(),
        }


def tune(
    search: Search,
    folder: Path,
    trials: int,
    timeout: float | None = None,
    on_progress: OnProgress = no_progress,
    on_open: Callable[[], None] = lambda: None,
) -> list[TrialRow]:
    """Train until the folder's study has ``trials`` trials, or for ``timeout`` seconds.

    The same call goes on after an interruption, within a trial after its last complete epoch.
    Writes ``trials.csv`` and ``best.yaml`` after each trial. Raises SearchError, before
    ``on_open`` is called, if the folder's study is another one.
    """
    with opened(folder, search.identity, search.prune, search.drawn) as study:
        on_open()
        rows = _written(study, search, folder)
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while len(rows) < trials and time.monotonic() < deadline:
            trial = ask(study, search.space.distributions(), search.base.seed)
            named = f"trial {len(rows) + 1} of {trials}"
            try:
                _run(study, trial, search, folder / TRIALS, deadline, named, on_progress)
            except _OutOfTimeError:
                break
            rows = _written(study, search, folder)
        if len(rows) >= trials:
            shutil.rmtree(folder / TRIALS, ignore_errors=True)
    return rows


def report(search: Search, folder: Path) -> list[TrialRow]:
    """Draw ``study.png``; return the finished trials of a folder. Raises SearchError."""
    names = list(search.space.dimensions)
    logarithmic = {n for n, d in search.space.dimensions.items() if getattr(d, "log", False)}
    with opened(folder, search.identity, drawn=search.drawn) as study:
        rows = _written(study, search, folder)
    if any(row.valid_auc is not None for row in rows):
        (folder / PICTURE).write_bytes(study_plot(rows, names, logarithmic))
    return rows


def _run(
    study: Study,
    trial: Trial,
    search: Search,
    folder: Path,
    deadline: float,
    named: str,
    on_progress: OnProgress,
) -> None:
    """Train one trial and tell the study how it ended."""
    if same := next((t for t in finished(study) if t.params == trial.params), None):
        _repeat(study, trial, same)  # training by the same recipe ends the same
        return
    recipe, reported = recipe_of(search.base, trial.params), 0

    def report(epochs: Sequence[Epoch]) -> None:
        nonlocal reported
        for epoch in epochs[reported:]:
            trial.report(epoch["valid_auc"], epoch["epoch"] - 1)  # pruners count steps from 0
        reported = len(epochs)
        _keep(trial, epochs)

    def on_epoch(epochs: Sequence[Epoch]) -> None:
        last = epochs[-1]["epoch"]
        on_progress(named, last, recipe.epochs)
        report(epochs)
        if last < recipe.epochs and trial.should_prune():
            raise _PrunedError
        if last < recipe.epochs and time.monotonic() >= deadline:
            raise _OutOfTimeError

    out = folder / hashlib.sha256(recipe.model_dump_json().encode()).hexdigest()[:16]
    try:
        on_progress(named, 0, recipe.epochs)
        group = ProcessGroup(0, 1)
        metrics = fit(search.train, search.valid, recipe, out, group, on_epoch=on_epoch)
    except _PrunedError:
        study.tell(trial, state=TrialState.PRUNED)
    except (CheckpointError, DivergedError) as error:
        trial.set_user_attr(FAILURE, str(error))
        study.tell(trial, state=TrialState.FAIL)
    else:
        report(metrics["epochs"])  # of a run that was stopped after its last epoch, too
        study.tell(trial, metrics["valid_auc"])
    shutil.rmtree(folder, ignore_errors=True)


def _keep(trial: Trial, epochs: Sequence[Epoch]) -> None:
    """Keep the epochs' figures of a trial for the table."""
    best = max(epochs, key=lambda epoch: epoch["valid_auc"])
    figures: dict[str, Any] = {
        "best_epoch": best["epoch"],
        "valid_logloss": best["valid_logloss"],
        "epochs": len(epochs),
        "seconds": sum(epoch["seconds"] for epoch in epochs),
    }
    for name, value in figures.items():
        trial.set_user_attr(name, value)


def _repeat(study: Study, trial: Trial, same: FrozenTrial) -> None:
    """End a trial as an earlier one with the same numbers ended."""
    for step, value in same.intermediate_values.items():
        trial.report(value, step)
    for name, attribute in same.user_attrs.items():
        trial.set_user_attr(name, 0.0 if name == "seconds" else attribute)
    study.tell(trial, same.value if same.state == TrialState.COMPLETE else None, same.state)


def _written(study: Study, search: Search, folder: Path) -> list[TrialRow]:
    """Write table and best recipe of the finished trials; return the table."""
    rows = [row_of(number, trial) for number, trial in enumerate(finished(study), start=1)]
    best = max((r for r in rows if r.state == "complete"), key=lambda r: r.score, default=None)
    if best is not None:
        rows = [row.marked_best() if row is best else row for row in rows]
        heading = f"# Trial {best.number} of {len(rows)}: validation AUC {best.score:.6f}.\n"
        text = heading + to_yaml(recipe_of(search.base, best.numbers))
        (folder / BEST).write_text(text, "utf-8")
    (folder / TABLE).write_text(csv_of(rows, list(search.space.dimensions)), "utf-8")
    return rows
