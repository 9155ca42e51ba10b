"""Kills trainings (SIGKILL) at drawn moments of every stage and compares the weights at the end.

``python -m tests.text.encoder.measure_kills [--json]``: preset ``tiny`` on ``text/corpus/tiny``,
its state saved at every step; exit code 1 if the weights are not those of an uninterrupted run.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from tests.text.encoder.killing import STAGES, Kill, Runs, same_weights
from text.corpus.archives import Archives
from text.corpus.build import build
from text.corpus.own_files import TINY
from text.encoder.presets import RECIPES

LONGEST_DELAY_S = 0.03  # from a step's end to the kill: about one step with its save


def measured(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    build(folder / "corpus", ["en", "de"], {}, [TINY], Archives(folder / "archives"))
    recipe = RECIPES.resolve("tiny", settings=["rarity=2"])
    runs, draw = Runs(folder / "corpus", recipe, torch.get_num_threads()), random.Random(seed)
    found: list[Kill] = []
    began = time.monotonic()
    runs.whole(folder / "whole")
    for stage in STAGES:
        last = getattr(recipe, stage).steps * 9 // 10  # so that the stage outlasts its last kill
        for kill in range(kills):
            step = draw.randrange(kill * last // kills + 2, (kill + 1) * last // kills + 2)
            delay = draw.uniform(0, LONGEST_DELAY_S)
            found.append(runs.kill(folder / "killed", stage, step, delay))
    runs.whole(folder / "killed")
    return {
        "kills": dict(Counter(kill.last[0] for kill in found)),
        "steps": [" ".join(map(str, kill.first + kill.last)) for kill in found],
        "within_a_save": sum(kill.is_saving for kill in found),
        "same_weights": same_weights(folder / "whole", folder / "killed"),
        "seconds": round(time.monotonic() - began, 1),
    }


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=5, help="In each stage.")
    options.add_argument("--seed", type=int, default=0, help="Of the moments.")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = measured(Path(folder), given.kills, given.seed)
    print(json.dumps(report) if given.json else "\n".join(f"{k}: {v}" for k, v in report.items()))
    enough = all(report["kills"].get(stage, 0) >= given.kills for stage in STAGES)
    return 0 if report["same_weights"] and enough else 1


if __name__ == "__main__":
    sys.exit(main())
