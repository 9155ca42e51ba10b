"""Prepares the stages of a run, each from its rows of the corpus when its turn comes."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from text.corpus.corpus import Corpus
from text.encoder import checkpoint, data
from text.encoder.distilled import DistilledStage, Teacher, distilled_rows
from text.encoder.jinabert import JinaBert, MaskedLanguageHead
from text.encoder.recipe import Recipe
from text.encoder.run import RunError
from text.encoder.stages import MaskedStage, MultiTaskStage, PairsStage
from text.tokenizer import TextTokenizer
from training.progress import OnProgress

MINED = "pairs"  # checkpoint after stage II, in the folder of a run


@dataclass(frozen=True)
class Preparation:
    """What stages are made of. Every method raises RunError where the corpus lacks its rows."""

    corpus: Corpus
    recipe: Recipe
    tokenizer: TextTokenizer
    network: JinaBert
    head: MaskedLanguageHead
    on_progress: OnProgress

    def masked(self, is_new: bool) -> MaskedStage:
        """Make stage I; ``is_new``: the head's bias starts from the tokens' frequencies."""
        self.on_progress("tokenise texts", 0, 1)
        recipe, seed = self.recipe.masked, self.recipe.seed
        tokens, groups = data.masked_rows(self.corpus, self.tokenizer, recipe.longest)
        for lang, group in zip(self.corpus.languages, groups, strict=True):
            self._require(group, f"no training texts in {lang}", "masked.steps=0")
        if is_new:
            vocabulary = self.recipe.sizes.vocabulary
            self.head.start_from(data.frequencies(tokens, groups, vocabulary))
        return MaskedStage(self.network, self.head, tokens, groups, recipe, seed)

    def pairs(self) -> PairsStage:
        """Make stage II."""
        self.on_progress("tokenise pairs", 0, 1)
        kinds = data.pair_rows(self.corpus, self.tokenizer, self.recipe.pairs.longest)
        self._require(kinds, f"no kind of pairs has {data.LEAST} groups", "pairs.steps=0")
        share = self.recipe.pairs.parallel
        drawn = [kind for kind in kinds if (share if kind.is_parallel else 1 - share) > 0]
        if not drawn:
            raise RunError(
                f"{self.corpus.folder}: pairs.parallel={share:g} draws none of its pairs; "
                f"--set pairs.parallel={1 - share:g} draws them"
            )
        return PairsStage(self.network, kinds, self.recipe.pairs, self.recipe.seed)

    def distilled(self, teacher: Teacher) -> DistilledStage:
        """Make the stage that learns a teacher's similarities."""
        recipe = self.recipe.distilled
        taught = distilled_rows(self.corpus, self.tokenizer, teacher, recipe)
        self._require(taught.first, "no training pairs", "distilled.steps=0")
        return DistilledStage(self.network, taught, recipe, self.recipe.seed)

    def multi_task(self, kept: Path, training: Mapping[str, Any]) -> MultiTaskStage:
        """Make stage III. Negatives are mined by the network as it is when the stage begins, which
        the folder of the run keeps: a run resumed in the stage has other weights.
        """
        recipe, mined = self.recipe.multi_task, kept / MINED
        if not mined.exists():
            checkpoint.save(mined, self.network, self.head, self.tokenizer, training)
        retrieval = data.query_rows(
            self.corpus,
            self.tokenizer,
            checkpoint.load(mined).network,
            recipe,
            self.recipe.seed,
            self.on_progress,
        )
        why = f"no kind of titles, keywords or pairs in one language has {data.LEAST} groups"
        self._require(retrieval, why, "multi_task.steps=0")
        similarity = data.graded_rows(self.corpus, self.tokenizer, recipe.longest)
        if recipe.similarity != "none":
            self._require(similarity, "no graded pairs", "multi_task.similarity=none")
        return MultiTaskStage(self.network, retrieval, similarity, recipe, self.recipe.seed)

    def _require(self, rows: Sized, why: str, setting: str) -> None:
        if not len(rows):
            raise RunError(f"{self.corpus.folder}: {why}; --set {setting} trains without")
