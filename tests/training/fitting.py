"""A training run of its own process: ``python -m tests.training.fitting OUT DROPOUT DELAY``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from tests.training.worlds import SIZES, small_rows
from training.data_parallel import process_group
from training.fit import fit
from training.recipe import Recipe

RECIPE = Recipe(
    sizes=SIZES.model_copy(update={"dropout": 0.2}),
    learning_rate=1e-2,
    batch_size=128,
    epochs=6,
    seed=3,
)


def run(out: Path, recipe: Recipe = RECIPE, delay: float = 0.0) -> None:
    """Train; ``delay`` seconds are slept at each step, so that a kill hits the middle."""
    with process_group() as group:
        fit(
            small_rows(1000, seed=1),
            small_rows(300, seed=2),
            recipe,
            out,
            group,
            lambda what, done, total: time.sleep(delay),
        )


def with_dropout(share: float) -> Recipe:
    return RECIPE.model_copy(update={"sizes": SIZES.model_copy(update={"dropout": share})})


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Path(sys.argv[1]), with_dropout(float(sys.argv[2])), delay=float(sys.argv[3]))
