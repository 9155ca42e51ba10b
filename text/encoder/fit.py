"""Trains an encoder: tokenizer, then the stages, each from the weights of the one before.

The folder's sibling ``.NAME.run/`` keeps a run that is not complete: tokenizer, state, and the
weights after stage II.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from text.corpus.corpus import Corpus
from text.encoder import checkpoint, data, finished, requirements
from text.encoder.distilled import Teacher
from text.encoder.jinabert import JinaBert, MaskedLanguageHead
from text.encoder.preparation import Preparation
from text.encoder.recipe import Recipe
from text.encoder.run import SAVE_SECONDS, Run, RunError
from text.encoder.sizes import EncoderSizes
from text.encoder.start import Start
from text.tokenizer import FILE, TextTokenizer, TokenizerError
from training.checkpoint import check_out
from training.loop.run_lock import alone
from training.output import write_whole, writing
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
    on_start: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Train on a corpus and write the checkpoint ``out``; return what ``training.json`` keeps.

    ``teacher``: what stage ``distilled`` learns from, if the recipe has steps of it.
    ``start``: checkpoint whose weights and tokenizer are the first; its stages are not repeated.
    ``on_start`` is called once it is certain that there is something to train.
    A killed run is resumed, with the same weights in the end; a finished one is left as it is.
    Raises RunError before the first step where ``out`` holds another run's checkpoint or the corpus
    lacks what a stage needs, and CheckpointError where ``out`` holds other files or ``start`` is
    none.
    """
    check_out(out)
    _check_teacher(recipe, teacher)
    began = None if start is None else Start.read(start, recipe)
    run_folder = out.with_name(f".{out.name}.run")
    identity = _identity(corpus, recipe, teacher, began)
    described = _described(corpus, recipe, teacher, began)
    out.parent.mkdir(parents=True, exist_ok=True)
    busy = RunError(f"{run_folder}: another process is at this run; end it or wait for it")
    with alone(run_folder.with_suffix(".lock"), busy):
        if finished.is_finished(out):
            training = finished.read(out, described)
            if _identity_of(run_folder) == identity.encode():  # killed before it was deleted
                shutil.rmtree(run_folder)
            return training
        check_precision(recipe)
        requirements.check(corpus, recipe, began.stages if began else ())
        kept = claimed(run_folder, identity)
        on_start()
        with _deleted_if_untrained(kept):
            tokenizer = began.tokenizer if began else _tokenizer(corpus, recipe, kept, on_progress)
            network, head = _untrained(recipe)
            if began:
                began.fill(network, head)
            modules = nn.ModuleDict({"network": network, "head": head})
            done, history = (began.stages, began.history) if began else ([], [])
            run = Run(modules, recipe.adam, kept / STATE, on_progress, save_seconds, done, history)
            training = described | {"stages": run.done, "history": run.history}
            prepare = Preparation(corpus, recipe, tokenizer, network, head, on_progress)
            _train(run, recipe, prepare, kept, began, teacher, training)
            checkpoint.save(out, network, head, tokenizer, training)
        shutil.rmtree(kept)
    return training


def _train(
    run: Run,
    recipe: Recipe,
    prepare: Preparation,
    kept: Path,
    began: Start | None,
    teacher: Teacher | None,
    training: dict[str, Any],
) -> None:
    """Train the stages that are not done yet, in their order."""
    if recipe.masked.steps and "masked" not in run.done:
        run.train(prepare.masked(began is None and run.is_new("masked")))
    if recipe.pairs.steps and "pairs" not in run.done:
        weighs = began is None or began.stages == ["masked"]  # not what was trained on others
        run.train(prepare.pairs(weighs and run.is_new("pairs")))
    if teacher is not None and "distilled" not in run.done:
        run.train(prepare.distilled(teacher))
    if recipe.multi_task.steps and "multi_task" not in run.done:
        run.train(prepare.multi_task(kept, training))


@contextmanager
def _deleted_if_untrained(kept: Path) -> Iterator[None]:
    """Delete the folder of a run that is refused before a state is kept: the remedy is another
    recipe, and so another run.
    """
    try:
        yield
    except RunError:
        if not (kept / STATE).exists():
            shutil.rmtree(kept)
        raise


def _check_teacher(recipe: Recipe, teacher: Teacher | None) -> None:
    steps = recipe.distilled.steps
    if steps and teacher is None:
        raise RunError(f"distilled.steps is {steps}, without a teacher; give --teacher NAME")
    if teacher is not None and not steps:
        raise RunError(f"teacher {teacher.name}: no steps; give --set distilled.steps=N")


def _identity(corpus: Corpus, recipe: Recipe, teacher: Teacher | None, began: Start | None) -> str:
    """Return what the weights of a run follow from."""
    name, digest = teacher.name if teacher else "", began.digest if began else ""
    return f"{recipe.model_dump_json()} {corpus.digest} {name} {digest}"


def _identity_of(kept: Path) -> bytes | None:
    file = kept / IDENTITY
    return file.read_bytes() if file.exists() else None


def _untrained(recipe: Recipe) -> tuple[JinaBert, MaskedLanguageHead]:
    """Return network and head with the weights of the recipe's seed."""
    torch.manual_seed(recipe.seed)
    network, head = JinaBert(recipe.sizes), MaskedLanguageHead(recipe.sizes)
    network.precision = recipe.precision
    return network, head


def _described(
    corpus: Corpus, recipe: Recipe, teacher: Teacher | None, began: Start | None
) -> dict[str, Any]:
    """Return what ``training.json`` keeps beside stages and history."""
    found = {
        "recipe": recipe.model_dump(),
        "corpus": {"digest": corpus.digest, "languages": list(corpus.languages)},
        "teacher": teacher.name if teacher else None,
    }
    return found | ({"start": began.described()} if began else {})


def claimed(kept: Path, identity: str) -> Path:
    """Return the folder of a run, made for recipe and corpus, or kept of a run of the same."""
    file = kept / IDENTITY
    if not file.exists():
        shutil.rmtree(kept, ignore_errors=True)  # what a kill left of one that was being deleted
        kept.mkdir(parents=True)
        write_whole(file, identity.encode())
    elif file.read_bytes() != identity.encode():
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


def _tokenizer(
    corpus: Corpus, recipe: Recipe, kept: Path, on_progress: OnProgress
) -> TextTokenizer:
    """Train the tokenizer, or read that of the run that is resumed."""
    if (kept / FILE).exists():
        try:
            return TextTokenizer.load(kept)
        except TokenizerError as error:
            raise RunError(f"{error}; delete {kept} to start again") from error
    on_progress("train the tokenizer", 0, 1)
    texts = data.sampled_texts(corpus, recipe.seed)
    tokenizer = trained_tokenizer(corpus, texts, recipe.sizes, recipe.lowercase)
    with writing(kept):
        tokenizer.save(kept)
    return tokenizer


def trained_tokenizer(
    corpus: Corpus, texts: Iterable[str], sizes: EncoderSizes, lowercase: bool = False
) -> TextTokenizer:
    """Train the tokenizer of an encoder on texts of a corpus. Raises RunError."""
    try:
        return TextTokenizer.train(texts, sizes.vocabulary, lowercase)
    except TokenizerError as error:
        raise RunError(f"{corpus.folder}: {error}") from error
