"""Holds what an ablation is given, and trains the encoders that claims share, each once.

A seed's encoder after stages I and II is an arm of the claim on languages; that of the first seed
is where the arms of the claim on similarity start, and where planted pages are looked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from text.ablate.items import Items
from text.ablate.recipe import Ablation
from text.corpus.corpus import Corpus
from text.encoder import checkpoint
from text.encoder.fit import fit
from text.encoder.recipe import Recipe
from text.encoder.run import RunError
from text.encoder.vectors import TorchEncoder
from text.evaluate.encoders import Cosine
from text.evaluate.tasks import Result, evaluate
from training.progress import OnProgress, no_progress

CHECKPOINTS, RESULTS = "checkpoints", "results"
FIRST = 1  # seed


@dataclass(frozen=True)
class Experiment:
    """Corpora, recipe and folder.

    ``six``: the corpus of more languages. ``start``: a checkpoint after stage II.
    """

    corpus: Corpus
    recipe: Ablation
    out: Path
    six: Corpus | None = None
    start: Path | None = None
    on_progress: OnProgress = no_progress

    def origin(self, claim: str) -> dict[str, Any]:
        """Return what the results of a claim follow from."""
        unused = set() if claim == "length" else {"length"}
        recipe = self.recipe.model_dump(exclude=unused)
        found: dict[str, Any] = {"recipe": recipe, "corpus": self.corpus.digest}
        if claim == "bilingual":
            return found | {"six": self.six.digest if self.six else None}
        return found | {"start": checkpoint.digest(self.start) if self.start else None}

    def items(self, documents: int | None = None) -> Items:
        """Return the items that arms are evaluated on, or as many documents, each with a query."""
        sizes = self.recipe.evaluation
        queries, most = documents or sizes.queries, documents or sizes.documents
        return Items(self.corpus.folder, self.corpus.about, sizes.graded, queries, most)

    def evaluated(
        self, folder: Path, tasks: list[str], items: Items, longest: int | None = None
    ) -> list[Result]:
        """Return figures of a checkpoint."""
        encoder = TorchEncoder.of(
            checkpoint.load(folder), longest or self.recipe.evaluation.longest
        )
        return evaluate(Cosine(folder.name, encoder), items, tasks, self.on_progress)

    def backbone(self, corpus: Corpus, seed: int) -> Path:
        """Return a checkpoint after stage I."""
        return self._fitted(f"{_named(corpus)}-masked-{seed}", corpus, self._recipe(seed, 0))

    def stage_two(self, corpus: Corpus, seed: int) -> Path:
        """Return a checkpoint after stage II, from the backbone of the same seed."""
        recipe = self._recipe(seed, self.recipe.encoder.pairs.steps)
        name = f"{_named(corpus)}-pairs-{seed}"
        return self._fitted(name, corpus, recipe, self.backbone(corpus, seed))

    @cached_property
    def shared(self) -> Path:
        """Return the stage-II checkpoint that stage III starts from: the one given, or our own."""
        if self.start is None:
            return self.stage_two(self.corpus, FIRST)
        stages = checkpoint.load(self.start).training.get("stages", [])
        if "pairs" not in stages or "multi_task" in stages:
            raise RunError(
                f"{self.start}: has the stages {', '.join(stages) or 'none'}; the start of an "
                "ablation has pairs and not multi_task: fit with --set multi_task.steps=0"
            )
        return self.start

    def stage_three(self, similarity: str, seed: int) -> Path:
        """Return a checkpoint after stage III, from the shared one; the seed changes batches.

        Arms have equally many batches of retrieval, every other one where a loss has the rest.
        """
        own = self.recipe.encoder
        steps = own.multi_task.steps
        if similarity == "none":
            steps = -(-steps // 2)  # the even ones
        settings = own.multi_task.model_copy(update={"similarity": similarity, "steps": steps})
        shared = checkpoint.load(self.shared)
        of_shared = {
            "sizes": shared.network.sizes,
            "lowercase": shared.tokenizer.is_lowercase,
        }
        changed = {"multi_task": settings, "seed": own.seed + seed} | of_shared
        recipe = own.model_copy(update=changed)
        return self._fitted(f"similarity-{similarity}-{seed}", self.corpus, recipe, self.shared)

    def _recipe(self, seed: int, pairs: int) -> Recipe:
        """Return the recipe of stage I, and of as many steps of stage II."""
        own = self.recipe.encoder
        changed = {
            "pairs": own.pairs.model_copy(update={"steps": pairs}),
            "multi_task": own.multi_task.model_copy(update={"steps": 0}),
            "seed": own.seed + seed,
        }
        return own.model_copy(update=changed)

    def _fitted(self, name: str, corpus: Corpus, recipe: Recipe, start: Path | None = None) -> Path:
        """Train a checkpoint, or return that of there, which must be of the same origin."""
        folder = self.out / CHECKPOINTS / name
        wanted = {"recipe": recipe.model_dump(), "corpus": corpus.digest, "start": ""}
        if start is not None:
            wanted["start"] = checkpoint.digest(start)
        if folder.exists():
            kept = checkpoint.load(folder).training
            found = {
                "recipe": kept.get("recipe"),
                "corpus": kept.get("corpus", {}).get("digest"),
                "start": kept.get("start", {}).get("digest", ""),
            }
            if other := ", ".join(key for key, value in wanted.items() if found[key] != value):
                raise RunError(f"{folder}: of another {other}; give another --out")
            return folder
        fit(corpus, recipe, folder, self.reported(name), start=start)
        return folder

    def reported(self, name: str) -> OnProgress:
        """Return a progress callback that names what is trained."""
        return lambda step, done, total: self.on_progress(f"{name}: {step}", done, total)


def _named(corpus: Corpus) -> str:
    return "-".join(corpus.languages)
