"""Trains a network with each arm's content, for several seeds; scores rows of cold items.

The networks of a seed differ in their items' content alone. They are trained with contents of
texts in the first language; cold items' content is of that language, and then of the second.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from text.ablate.results import Result, Results
from text.cold.contents import ARMS, OURS, Arm, contents
from text.cold.world import World
from text.runtime.encoder import TextEncoder
from training import checkpoint
from training.evaluation.evaluate import share_of_the_possible
from training.evaluation.metrics import auc
from training.loop.data_parallel import ProcessGroup
from training.loop.fit import fit, predict
from training.progress import OnProgress
from training.recipe import Recipe
from training.synthetic.sizes import SynthesisSizes
from training.synthetic.tagged_items import TaggedItems

CLAIM = "cold"  # in names of kept results
FIRST, SECOND, BEST, WARM = "auc_first", "auc_second", "best_auc", "auc_valid"


@dataclass(frozen=True, slots=True, eq=False)
class Experiment:
    """What all seeds and arms share; ``out`` keeps their results, which a rerun does not repeat."""

    encoder: TextEncoder
    tagged: TaggedItems
    sizes: SynthesisSizes
    recipe: Recipe
    out: Path
    on_progress: OnProgress
    arms: Sequence[Arm] = ARMS

    def run(self, seeds: Sequence[int]) -> list[Result]:
        """Measure every arm with every seed; encoders share results of arms without one.

        Raises DataFileError, RunError, ValueError.
        """
        origin: dict[str, Any] = {
            "items": self.tagged.digest,
            "recipe": self.recipe.model_dump(),
            "sizes": self.sizes.schema.model_dump()
            | {name: getattr(self.sizes, name) for name in ("train", "valid", "cold")},
        }
        ours = Results(self.out, {"encoder": self.encoder.bundle.digest} | origin)
        results = {arm: ours if arm in OURS else Results(self.out, origin) for arm in self.arms}
        found = []
        for number, seed in enumerate(seeds):
            known = {arm: results[arm].read(CLAIM, arm, seed) for arm in self.arms}
            if None in known.values():
                self._seed(seed, known, results)
            found += [result for result in known.values() if result]
            self.on_progress("seeds", number + 1, len(seeds))
        return found

    def _seed(
        self, seed: int, known: dict[Arm, Result | None], results: dict[Arm, Results]
    ) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        # rows and checkpoints: drawn again from a seed
        with tempfile.TemporaryDirectory(prefix=f"seed-{seed}-", dir=self.out) as name:
            folder = Path(name)
            world = World.draw(folder, self.tagged, self.sizes, seed, self.on_progress)
            for number, arm in enumerate(self.arms):
                if known[arm] is None:
                    known[arm] = result = self._arm(world, arm, seed, folder)
                    results[arm].write(result)
                self.on_progress(f"contents of seed {seed}", number + 1, len(self.arms))

    def _arm(self, world: World, arm: Arm, seed: int, folder: Path) -> Result:
        started = time.process_time()
        own = contents(arm, world.texts, world.planted, self.encoder, folder)
        first, second = world.texts.languages
        out = folder / arm
        train, valid = (
            world.with_content(rows, own.warm, own.cold[first])
            for rows in (world.train, world.valid)
        )
        recipe = self.recipe.model_copy(update={"seed": self.recipe.seed + seed})
        fit(train, valid, recipe, out, ProcessGroup(0, 1), self.on_progress)
        network = checkpoint.load(out)
        figures = {BEST: float(world.truth.best_auc_cold or 0.5)}
        for name, lang in ((FIRST, first), (SECOND, second)):
            rows = world.with_content(world.cold, own.warm, own.cold[lang])
            figures[name] = float(auc(predict(network, rows), rows.label))
            figures[f"share_{name[4:]}"] = share_of_the_possible(figures[name], figures[BEST])
        figures[WARM] = float(auc(predict(network, valid), valid.label))
        return Result(CLAIM, arm, seed, figures, time.process_time() - started)
