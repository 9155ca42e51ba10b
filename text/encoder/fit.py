"""Trains an encoder: tokenizer, then the three stages, each from the weights of the one before.

The folder's sibling ``.NAME.run/`` keeps a run that is not complete: tokenizer, state, and the
weights after stage II.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from text.corpus.corpus import Corpus
from text.encoder import checkpoint, data
from text.encoder.jinabert import JinaBert, MaskedLanguageHead
from text.encoder.recipe import Recipe
from text.encoder.run import SAVE_SECONDS, Run, RunError
from text.encoder.stages import MaskedStage, MultiTaskStage, PairsStage
from text.tokenizer import FILE, TextTokenizer, TokenizerError
from training.progress import OnProgress, no_progress

STATE = "state.pt"


def fit(
    corpus: Corpus,
    recipe: Recipe,
    out: Path,
    on_progress: OnProgress = no_progress,
    save_seconds: float = SAVE_SECONDS,
) -> dict[str, Any]:
    """Train on a corpus and write the checkpoint ``out``; return what ``training.json`` keeps.

    A killed run is resumed, with the same weights in the end. Raises RunError.
    """
    kept = out.with_name(f".{out.name}.run")
    kept.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(corpus, recipe, kept, on_progress)
    torch.manual_seed(recipe.seed)
    network, head = JinaBert(recipe.sizes), MaskedLanguageHead(recipe.sizes)
    modules = nn.ModuleDict({"network": network, "head": head})
    identity = f"{recipe.model_dump_json()} {corpus.digest}"
    run = Run(modules, recipe.adam, kept / STATE, identity, on_progress, save_seconds)
    training: dict[str, Any] = {
        "recipe": recipe.model_dump(),
        "corpus": {"digest": corpus.digest, "languages": list(corpus.languages)},
        "stages": run.done,
        "history": run.history,
    }

    if "masked" not in run.done and recipe.masked.steps:
        on_progress("tokenise texts", 0, 1)
        tokens, groups = data.masked_rows(corpus, tokenizer, recipe.masked.longest)
        run.train(MaskedStage(network, head, tokens, groups, recipe.masked, recipe.seed))
    if "pairs" not in run.done and recipe.pairs.steps:
        on_progress("tokenise pairs", 0, 1)
        kinds = data.pair_rows(corpus, tokenizer, recipe.pairs.longest)
        if not kinds:
            raise RunError(f"{corpus.folder}: no kind of pairs has {data.LEAST} groups")
        run.train(PairsStage(network, kinds, recipe.pairs, recipe.seed))
    if "multi_task" not in run.done and recipe.multi_task.steps:
        before = kept / "pairs"  # mined from: a run resumed in stage III has other weights
        if not before.exists():
            checkpoint.save(before, network, head, tokenizer, training)
        network_before = checkpoint.load(before).network
        retrieval = data.query_rows(
            corpus, tokenizer, network_before, recipe.multi_task, recipe.seed, on_progress
        )
        similarity = data.graded_rows(corpus, tokenizer, recipe.multi_task.longest)
        run.train(MultiTaskStage(network, retrieval, similarity, recipe.multi_task, recipe.seed))
    checkpoint.save(out, network, head, tokenizer, training)
    shutil.rmtree(kept)
    return training


def _tokenizer(
    corpus: Corpus, recipe: Recipe, kept: Path, on_progress: OnProgress
) -> TextTokenizer:
    """Train the tokenizer, or read that of the run that is resumed."""
    if (kept / FILE).exists():
        return TextTokenizer.load(kept)
    on_progress("train the tokenizer", 0, 1)
    texts = data.sampled_texts(corpus, recipe.seed)
    try:
        tokenizer = TextTokenizer.train(texts, recipe.sizes.vocabulary)
    except TokenizerError as error:
        raise RunError(f"{corpus.folder}: {error}") from error
    tokenizer.save(kept)
    return tokenizer
