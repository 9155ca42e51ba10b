"""Trains an encoder: tokenizer, then the stages, each from the weights of the one before.

The folder's sibling ``.NAME.run/`` keeps a run that is not complete: tokenizer, state, and the
weights after stage II.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Any

import torch
from torch import nn

from text.corpus.corpus import Corpus
from text.encoder import checkpoint, data
from text.encoder.distilled import DistilledStage, Teacher, distilled_rows
from text.encoder.jinabert import JinaBert, MaskedLanguageHead
from text.encoder.recipe import Recipe
from text.encoder.run import SAVE_SECONDS, Run, RunError
from text.encoder.sizes import EncoderSizes
from text.encoder.stages import MaskedStage, MultiTaskStage, PairsStage
from text.tokenizer import FILE, MASK, SPECIAL, TextTokenizer, TokenizerError
from training.checkpoint import check_out
from training.progress import OnProgress, no_progress

STATE, IDENTITY = "state.pt", "identity"


def fit(
    corpus: Corpus,
    recipe: Recipe,
    out: Path,
    on_progress: OnProgress = no_progress,
    save_seconds: float = SAVE_SECONDS,
    teacher: Teacher | None = None,
    start: Path | None = None,
) -> dict[str, Any]:
    """Train on a corpus and write the checkpoint ``out``; return what ``training.json`` keeps.

    ``teacher``: what stage ``distilled`` learns from, if the recipe has steps of it.
    ``start``: checkpoint whose weights and tokenizer are the first; its stages are not repeated.
    A killed run is resumed, with the same weights in the end. Raises RunError, and
    CheckpointError where ``out`` holds other files or ``start`` is none.
    """
    check_out(out)
    check_precision(recipe)
    steps = recipe.distilled.steps
    if steps and teacher is None:
        raise RunError(f"distilled.steps is {steps}, without a teacher; give --teacher NAME")
    if teacher is not None and not steps:
        raise RunError(f"teacher {teacher.name}: no steps; give --set distilled.steps=N")
    began = None if start is None else _start(start, recipe)
    digest = "" if start is None else checkpoint.digest(start)
    identity = (
        f"{recipe.model_dump_json()} {corpus.digest} {teacher.name if teacher else ''} {digest}"
    )
    kept = claimed(out.with_name(f".{out.name}.run"), identity)
    tokenizer = began.tokenizer if began else _tokenizer(corpus, recipe, kept, on_progress)
    torch.manual_seed(recipe.seed)
    network, head = JinaBert(recipe.sizes), MaskedLanguageHead(recipe.sizes)
    network.precision = recipe.precision
    modules = nn.ModuleDict({"network": network, "head": head})
    training: dict[str, Any] = {
        "recipe": recipe.model_dump(),
        "corpus": {"digest": corpus.digest, "languages": list(corpus.languages)},
        "teacher": teacher.name if teacher else None,
    }
    done, history = list[str](), list[dict[str, Any]]()
    if began is not None:
        network.load_state_dict(began.network.state_dict())
        if began.head is not None:
            head.load_state_dict(began.head.state_dict())
        before = dict(began.training)
        done, history = list(before.get("stages", done)), before.pop("history", history)
        training["start"] = {"digest": digest} | before
    run = Run(modules, recipe.adam, kept / STATE, on_progress, save_seconds, done, history)
    training |= {"stages": run.done, "history": run.history}

    if "masked" not in run.done and recipe.masked.steps:
        on_progress("tokenise texts", 0, 1)
        tokens, groups = data.masked_rows(corpus, tokenizer, recipe.masked.longest)
        for lang, group in zip(corpus.languages, groups, strict=True):
            _require(group, corpus, f"no training texts in {lang}", "masked.steps=0")
        if run.is_new and began is None:
            head.start_from(data.frequencies(tokens, groups, recipe.sizes.vocabulary))
        run.train(MaskedStage(network, head, tokens, groups, recipe.masked, recipe.seed))
    if "pairs" not in run.done and recipe.pairs.steps:
        on_progress("tokenise pairs", 0, 1)
        kinds = data.pair_rows(corpus, tokenizer, recipe.pairs.longest)
        _require(kinds, corpus, f"no kind of pairs has {data.LEAST} groups", "pairs.steps=0")
        run.train(PairsStage(network, kinds, recipe.pairs, recipe.seed))
    if "distilled" not in run.done and teacher is not None:
        taught = distilled_rows(corpus, tokenizer, teacher, recipe.distilled)
        _require(taught.first, corpus, "no training pairs", "distilled.steps=0")
        run.train(DistilledStage(network, taught, recipe.distilled, recipe.seed))
    if "multi_task" not in run.done and recipe.multi_task.steps:
        mined = kept / "pairs"  # mined from: a run resumed in stage III has other weights
        if not mined.exists():
            checkpoint.save(mined, network, head, tokenizer, training)
        network_before = checkpoint.load(mined).network
        retrieval = data.query_rows(
            corpus, tokenizer, network_before, recipe.multi_task, recipe.seed, on_progress
        )
        why = f"no kind of titles, keywords or pairs in one language has {data.LEAST} groups"
        _require(retrieval, corpus, why, "multi_task.steps=0")
        similarity = data.graded_rows(corpus, tokenizer, recipe.multi_task.longest)
        if recipe.multi_task.similarity != "none":
            _require(similarity, corpus, "no graded pairs", "multi_task.similarity=none")
        run.train(MultiTaskStage(network, retrieval, similarity, recipe.multi_task, recipe.seed))
    checkpoint.save(out, network, head, tokenizer, training)
    shutil.rmtree(kept)
    return training


def _start(folder: Path, recipe: Recipe) -> checkpoint.Checkpoint:
    """Read the checkpoint to start from: of the recipe's sizes, with our tokenizer's layout."""
    found = checkpoint.load(folder)
    if found.tokenizer.special.get("mask") != SPECIAL[MASK]:
        raise RunError(f"{folder}: its tokenizer has no {SPECIAL[MASK]}; start from one of `fit`")
    own, given = found.network.sizes.model_dump(), recipe.sizes.model_dump()
    if other := [f"sizes.{name}={value}" for name, value in own.items() if given[name] != value]:
        raise RunError(f"{folder}: of other sizes than the recipe; --set {' --set '.join(other)}")
    return found


def claimed(kept: Path, identity: str) -> Path:
    """Return the folder of a run, made for recipe and corpus, or kept of a run of the same."""
    file = kept / IDENTITY
    if not file.exists():
        shutil.rmtree(kept, ignore_errors=True)  # what a kill left of one that was being deleted
        kept.mkdir(parents=True)
        file.write_text(identity)
    elif file.read_text() != identity:
        raise RunError(
            f"{kept}: a run of another recipe, corpus or start; "
            "give that run's recipe to resume it, or delete the folder to start"
        )
    return kept


def check_precision(recipe: Recipe) -> None:
    """Raise RunError where the processor lacks the recipe's precision."""
    if recipe.precision == "bfloat16" and not has_bfloat16():
        raise RunError("the processor has no bfloat16: give --set precision=float32")


def has_bfloat16() -> bool:
    """Tell whether the processor has products in bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _require(rows: Sized, corpus: Corpus, why: str, setting: str) -> None:
    if not len(rows):
        raise RunError(f"{corpus.folder}: {why}; --set {setting} trains without")


def _tokenizer(
    corpus: Corpus, recipe: Recipe, kept: Path, on_progress: OnProgress
) -> TextTokenizer:
    """Train the tokenizer, or read that of the run that is resumed."""
    if (kept / FILE).exists():
        return TextTokenizer.load(kept)
    on_progress("train the tokenizer", 0, 1)
    texts = data.sampled_texts(corpus, recipe.seed)
    tokenizer = trained_tokenizer(corpus, texts, recipe.sizes)
    tokenizer.save(kept)
    return tokenizer


def trained_tokenizer(corpus: Corpus, texts: Iterable[str], sizes: EncoderSizes) -> TextTokenizer:
    """Train the tokenizer of an encoder on texts of a corpus. Raises RunError."""
    try:
        return TextTokenizer.train(texts, sizes.vocabulary)
    except TokenizerError as error:
        raise RunError(f"{corpus.folder}: {error}") from error
