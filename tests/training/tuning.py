"""A search of its own process, to be killed: ``python -m tests.training.tuning FOLDER TRIALS``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from tests.training.fitting import RECIPE
from tests.training.worlds import small_rows
from training.progress import OnProgress, no_progress
from training.tuning.search_space import Choice, Range, SearchSpace
from training.tuning.trials_table import TrialRow
from training.tuning.tune import Search, tune

SPACE = SearchSpace(
    {
        "learning_rate": Range(kind="float", low=1e-6, high=1e-1, log=True),
        "sizes.rows": Range(kind="int", low=1, high=3),
        "batch_size": Choice(kind="choice", values=[64, 128]),
    }
)
BASE = RECIPE.model_copy(update={"epochs": 3})


def search(**changes: object) -> Search:
    parts = {
        "space": SPACE,
        "base": BASE,
        "train": small_rows(500, seed=1),
        "valid": small_rows(200, seed=2),
    }
    return Search(**(parts | changes))  # type: ignore[arg-type]


def run(folder: Path, trials: int, on_progress: OnProgress = no_progress) -> list[TrialRow]:
    return tune(search(), folder, trials, on_progress=on_progress)


def pausing() -> OnProgress:
    """At the end of the fourth epoch of all trials, when three are reported, wait for a kill."""
    epochs = 0

    def pause(what: str, done: int, total: int) -> None:
        nonlocal epochs
        epochs += done > 0
        if epochs == 4:
            time.sleep(600)

    return pause


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), int(sys.argv[2]), pausing())
