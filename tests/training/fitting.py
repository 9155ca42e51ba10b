"""A training run of its own process, to be killed: ``python -m tests.training.fitting OUT``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from tests.training.worlds import SIZES, small_rows
from training.loop.data_parallel import process_group
from training.loop.fit import fit
from training.progress import OnProgress, no_progress
from training.recipe import Recipe

RECIPE = Recipe(
    sizes=SIZES.model_copy(update={"dropout": 0.2}),
    learning_rate=1e-2,
    batch_size=128,
    epochs=6,
    seed=3,
)


def run(out: Path, recipe: Recipe = RECIPE, on_progress: OnProgress = no_progress) -> None:
    with process_group() as group:
        fit(small_rows(1000, seed=1), small_rows(300, seed=2), recipe, out, group, on_progress)


def with_dropout(share: float) -> Recipe:
    return RECIPE.model_copy(update={"sizes": SIZES.model_copy(update={"dropout": share})})


def pause(what: str, done: int, total: int) -> None:
    """In the middle of the third epoch, say so and wait for a kill."""
    if what.startswith("epoch 3 ") and 2 * done >= total:
        print("paused", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), on_progress=pause)
