"""Prepares the stages of a run, each from its rows of the corpus when its turn comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from text.corpus.corpus import Corpus
from text.encoder import checkpoint, data
from text.encoder.distilled import DistilledStage, Teacher, distilled_rows
from text.encoder.jinabert import JinaBert, MaskedLanguageHead
from text.encoder.rarity import inverse_document_frequencies, weigh
from text.encoder.recipe import Recipe
from text.encoder.stages import MaskedStage, MultiTaskStage, PairsStage
from text.tokenizer import TextTokenizer, Tokens
from training.progress import OnProgress

MINED = "pairs"  # checkpoint after stage II, in the folder of a run


@dataclass(frozen=True)
class Preparation:
    """What stages are made of; the corpus has their rows (``requirements.check``)."""

    corpus: Corpus
    recipe: Recipe
    tokenizer: TextTokenizer
    network: JinaBert
    head: MaskedLanguageHead
    on_progress: OnProgress

    @cached_property
    def _texts(self) -> tuple[Tokens, list[NDArray[np.int64]]]:
        """Tokenise the training texts once; the rows of each language."""
        self.on_progress("tokenise texts", 0, 1)
        return data.masked_rows(self.corpus, self.tokenizer, self.recipe.masked.longest)

    def masked(self, is_new: bool) -> MaskedStage:
        """Make stage I; ``is_new``: the head's bias starts from the tokens' frequencies."""
        recipe, seed = self.recipe.masked, self.recipe.seed
        if is_new:
            vocabulary = self.recipe.sizes.vocabulary
            self.head.start_from(data.frequencies(*self._texts, vocabulary))
        return MaskedStage(self.network, self.head, *self._texts, recipe, seed)

    def pairs(self, is_new: bool) -> PairsStage:
        """Make stage II; ``is_new``: tokens get the weights of their rarity in the texts."""
        vocabulary, rarity = self.recipe.sizes.vocabulary, self.recipe.rarity
        if is_new and rarity:
            idf = inverse_document_frequencies(self._texts[0], vocabulary)
            weigh(self.network, idf, rarity)
        self.on_progress("tokenise pairs", 0, 1)
        kinds = data.pair_rows(self.corpus, self.tokenizer, self.recipe.pairs.longest)
        return PairsStage(self.network, kinds, self.recipe.pairs, self.recipe.seed)

    def distilled(self, teacher: Teacher) -> DistilledStage:
        """Make the stage that learns a teacher's similarities."""
        recipe = self.recipe.distilled
        taught = distilled_rows(self.corpus, self.tokenizer, teacher, recipe)
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
        similarity = data.graded_rows(self.corpus, self.tokenizer, recipe.longest)
        return MultiTaskStage(self.network, retrieval, similarity, recipe, self.recipe.seed)
