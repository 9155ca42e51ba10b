"""A search of its own process: ``python -m tests.training.tuning FOLDER TRIALS DELAY``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from tests.training.fitting import RECIPE
from tests.training.worlds import small_rows
from training.search_space import Choice, Range, SearchSpace
from training.trials_table import TrialRow
from training.tune import Search, tune

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


def run(folder: Path, trials: int, delay: float = 0.0) -> list[TrialRow]:
    """Search; ``delay`` seconds are slept at each epoch, so that a kill hits the middle."""
    return tune(search(), folder, trials, on_progress=lambda what, done, total: time.sleep(delay))


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
