"""A study: the trials of a search over recipes, kept in a folder by Optuna.

``study.journal`` is Optuna's journal, a line per event. One process at a time works on a folder.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from training.loop.run_lock import alone
from training.recipe import differences, without
from training.tuning.search_space import SearchError

JOURNAL, IDENTITY, FAILURE = "study.journal", "identity", "failure"
DRAWN = "drawn"  # of a trial that has all its numbers


class _NoLock(JournalFileSymlinkLock):
    """No lock per line: the folder's is held. Optuna's fails if Ctrl-C arrives in its release."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


@contextmanager
def opened(
    folder: Path, identity: Mapping[str, str], prune: bool = True, drawn: Collection[str] = ()
) -> Iterator[Study]:
    """Open or begin the study of a folder. Raises SearchError.

    ``identity`` is what all its trials share, by name; of its recipe the numbers ``drawn`` may
    differ from those kept. A trial that was interrupted is first in
    the queue, with its numbers.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    busy = SearchError(f"{folder}: another process works on this study")
    with alone(folder / ".lock", busy):
        _repair(folder / JOURNAL)
        study = _study(folder / JOURNAL, prune)
        kept = study.user_attrs.get(IDENTITY) or dict(identity)
        other = [name for name, ours in identity.items() if kept.get(name) != ours]
        numbers = ""
        if "recipe" in other:
            recipes = (kept.get("recipe"), identity["recipe"])
            if without(recipes[0], drawn) == without(recipes[1], drawn):
                other.remove("recipe")
            numbers = differences(*recipes, drawn)
        if other:
            raise SearchError(
                f"{folder}: a study with another {' and '.join(other)} is here{numbers}; "
                "go on with its own, or give another --out"
            )
        study.set_user_attr(IDENTITY, dict(identity))
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            study.tell(trial.number, state=TrialState.FAIL)
            if DRAWN in trial.user_attrs:  # others are drawn again, to the same numbers
                study.enqueue_trial(trial.params)
        yield study


def finished(study: Study) -> list[FrozenTrial]:
    """Trials that ended by themselves, in order: complete, pruned or diverged."""
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    trials = study.get_trials(states=(*ended, TrialState.FAIL))
    return [t for t in trials if t.state in ended or FAILURE in t.user_attrs]


def ask(study: Study, distributions: Mapping[str, Any], seed: int) -> Trial:
    """Begin a trial. What it draws depends on the finished trials and the seed alone."""
    study.sampler = TPESampler(seed=(seed + len(finished(study))) % 2**32)
    trial = study.ask(dict(distributions))
    trial.set_user_attr(DRAWN, True)
    return trial


def _study(journal: Path, prune: bool) -> Study:
    try:
        return optuna.create_study(
            study_name="tune",
            storage=JournalStorage(JournalFileBackend(str(journal), _NoLock(str(journal)))),
            pruner=_pruner(prune),
            direction="maximize",
            load_if_exists=True,
        )
    except OSError:
        raise
    except Exception as error:  # of a damaged line, nearly any
        raise SearchError(
            f"{journal}: damaged; restore it from a copy, or give another --out"
        ) from error


def _pruner(prune: bool) -> optuna.pruners.BasePruner:
    """Prune by the median of other trials' epochs, from the second epoch and sixth trial on."""
    if not prune:
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)


def _repair(journal: Path) -> None:
    """Remove a last line that a killed process left cut short."""
    if journal.exists():
        os.truncate(journal, journal.read_bytes().rfind(b"\n") + 1)
