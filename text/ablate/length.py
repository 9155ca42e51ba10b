"""Measures the claim on length: masked words and planted pages in short and long texts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from text.ablate.experiment import CHECKPOINTS, Experiment
from text.ablate.learnt_positions import LearntPositions
from text.ablate.masked_words import WHOLE, accuracy, lengths_to, long_texts, running_texts
from text.encoder import data
from text.encoder.fit import STATE, claimed, trained_tokenizer
from text.encoder.jinabert import JinaBert, MaskedLanguageHead
from text.encoder.run import Run
from text.encoder.stages import MaskedStage
from text.tokenizer import TextTokenizer, Tokens

NETWORKS: dict[str, type[JinaBert]] = {"alibi": JinaBert, "learnt": LearntPositions}


def measured(experiment: Experiment, arm: str, seed: int) -> dict[str, float]:
    """Return the accuracy of masked words by length, or nDCG@10 of planted pages."""
    if arm == "planted":
        return _planted(experiment)
    recipe, encoder, corpus = experiment.recipe.length, experiment.recipe.encoder, experiment.corpus
    identity = f"{experiment.recipe.model_dump_json()} {corpus.digest}"
    kept = claimed(experiment.out / CHECKPOINTS / f".length-{arm}-{seed}.run", identity)
    texts = [running_texts(corpus, lang, ("train",)) for lang in corpus.languages]
    tokenizer = trained_tokenizer(corpus, itertools.chain(*texts), recipe.sizes)
    torch.manual_seed(encoder.seed + seed)
    network, head = NETWORKS[arm](recipe.sizes), MaskedLanguageHead(recipe.sizes)
    network.precision = encoder.precision
    modules = nn.ModuleDict({"network": network, "head": head})
    run = Run(modules, encoder.adam, kept / STATE, experiment.reported(f"{arm}-{seed}"))
    if "masked" not in run.done:
        tokens, groups = _windows(texts, tokenizer, recipe.masked.longest)
        seeded = encoder.seed + seed
        if run.is_new("masked"):
            head.start_from(data.frequencies(tokens, groups, recipe.sizes.vocabulary))
        run.train(MaskedStage(network, head, tokens, groups, recipe.masked, seeded))
    modules.eval()
    network.precision = "float32"  # as a checkpoint that is loaded
    return _accuracies(experiment, network, head, tokenizer)


def _windows(
    texts: Sequence[Sequence[str]], tokenizer: TextTokenizer, longest: int
) -> tuple[Tokens, list[NDArray[np.int64]]]:
    """Return the texts of each language in windows of ``longest`` tokens, and its rows."""
    tokens = tokenizer.encode([text for own in texts for text in own], WHOLE)
    windows, owner = data.windows_of(tokens, longest)
    ends = np.cumsum([len(own) for own in texts])
    lang = np.searchsorted(ends, owner, "right")
    return windows, [np.flatnonzero(lang == number) for number in range(len(texts))]


def _accuracies(
    experiment: Experiment, network: JinaBert, head: MaskedLanguageHead, tokenizer: TextTokenizer
) -> dict[str, float]:
    sizes, corpus = experiment.recipe.length, experiment.corpus
    texts = [
        text for lang in corpus.languages for text in long_texts(corpus, tokenizer, lang, sizes)
    ]
    found = {}
    for length in lengths_to(sizes.longest):
        right, total = accuracy(network, head, texts, length, sizes.longest, experiment.on_progress)
        found[f"accuracy {length}"] = right / total
    return found


def _planted(experiment: Experiment) -> dict[str, float]:
    """Return nDCG@10 of planted pages by length, a mean over languages, after stage II."""
    sizes = experiment.recipe.length
    items = experiment.items(sizes.planted)
    results = experiment.evaluated(experiment.shared, ["lengths"], items, sizes.longest)
    values: dict[int, list[float]] = {}
    for result in results:
        length = int(result.task.rpartition("-")[2])
        if result.metric == "ndcg@10" and length <= sizes.longest:
            values.setdefault(length, []).append(result.value)
    return {f"nDCG@10 {length}": fmean(values[length]) for length in sorted(values)}
