"""Checks that a corpus has the rows of every stage of a recipe, before the first is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from text.corpus.corpus import Corpus
from text.encoder import data
from text.encoder.recipe import Recipe
from text.encoder.run import RunError
from text.encoder.stages import shares


def check(corpus: Corpus, recipe: Recipe, done: Sequence[str] = ()) -> None:
    """Raise RunError, with a remedy for each stage, where the corpus lacks what one needs.

    ``done``: stages that are not trained.
    """
    checks = {"masked": _masked, "pairs": _pairs, "distilled": _distilled, "multi_task": _tasks}
    lacking = [
        fault
        for stage, faults in checks.items()
        if stage not in done and getattr(recipe, stage).steps
        for fault in faults(corpus, recipe)
    ]
    if lacking:
        raise RunError(f"{corpus.folder}: {', and '.join(lacking)}")


def _masked(corpus: Corpus, recipe: Recipe) -> Iterator[str]:
    for lang in corpus.languages:
        if not corpus.texts(lang, "train").num_rows:
            yield f"no training texts in {lang}; --set masked.steps=0 trains without"
            return


def _pairs(corpus: Corpus, recipe: Recipe) -> Iterator[str]:
    kinds = data.pair_kinds(corpus.pairs(split="train"))
    pairs = recipe.pairs
    if not kinds:
        yield f"no kind of pairs has {data.LEAST} groups; --set pairs.steps=0 trains without"
    elif not shares([len(kind.rows) for kind in kinds], [kind.kind for kind in kinds], pairs).any():
        yield (
            f"pairs.words={pairs.words:g}, pairs.parallel={pairs.parallel:g} and "
            f"pairs.titles={pairs.titles:g} draw none of its pairs; --set pairs.words=0.2 "
            "--set pairs.parallel=0.5 --set pairs.titles=0.5 draws all"
        )


def _distilled(corpus: Corpus, recipe: Recipe) -> Iterator[str]:
    if not data.pairs_of_texts(corpus).num_rows:
        yield "no pairs of texts; --set distilled.steps=0, and no --teacher, trains without"


def _tasks(corpus: Corpus, recipe: Recipe) -> Iterator[str]:
    if not data.query_kinds(corpus, recipe.multi_task, recipe.seed):
        yield (
            f"no kind of titles, keywords or pairs in one language has {data.LEAST} groups; "
            "--set multi_task.steps=0 trains without"
        )
    elif recipe.multi_task.similarity != "none":
        graded = corpus.graded(split="train")
        if not data.graded_kinds(graded):
            which = "no graded pairs of different scores" if len(graded) else "no graded pairs"
            yield f"{which}; --set multi_task.similarity=none trains without"
