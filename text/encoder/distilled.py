"""Distils a teacher's similarities into the encoder: an option apart from the published recipe.

The stage compares the cosines of a batch with those of the teacher's vectors, which may have any
width (relational distillation: Park et al. 2019, arXiv 1904.05068), by Pearson's correlation, since
teachers differ in the range of their cosines (Huang et al. 2022, arXiv 2205.10536). A teacher
before the tasks is what jina-embeddings-v5 is trained with (arXiv 2602.15547).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text.corpus.corpus import Corpus
from text.encoder import objectives
from text.encoder.batches import generator_of
from text.encoder.data import pairs_of_texts, tokenised
from text.encoder.jinabert import JinaBert
from text.encoder.recipe import Distilled
from text.encoder.run import RunError
from text.encoder.vectors import embed_batch
from text.tokenizer import TextTokenizer, Tokens
from training.output import writing
from training.progress import OnProgress, no_progress

CHUNK = 512  # texts that the teacher encodes at a time


class Teacher(Protocol):
    """An encoder whose similarities are learnt."""

    @property
    def name(self) -> str: ...

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32] | None:
        """Return vectors (N, D), or None where it has none."""


@dataclass(frozen=True)
class CachedTeacher:
    """A teacher whose vectors are kept in a folder, in a file for each list of texts.

    ``name`` must change with the teacher's vectors: it is part of the file's digest.
    """

    name: str
    teacher: Teacher
    folder: Path
    on_progress: OnProgress = no_progress

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        digest = hashlib.sha256("\0".join((self.name, *texts)).encode())
        path = self.folder / f"{digest.hexdigest()}.npy"
        if path.exists():
            try:
                return np.asarray(np.load(path, allow_pickle=False), np.float32)
            except (ValueError, EOFError) as error:
                raise RunError(f"{path}: damaged; delete it to encode again") from error
        found = []
        for start in range(0, len(texts), CHUNK):
            self.on_progress(f"{self.name}: encode", start, len(texts))
            chunk = self.teacher.vectors(texts[start : start + CHUNK])
            if chunk is None:
                raise RunError(f"{self.name} has no vectors to learn from")
            found.append(chunk)
        vectors = np.concatenate(found)
        self.folder.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        with writing(path), new.open("wb") as file:
            np.save(file, vectors)
        new.replace(path)
        return vectors


@dataclass(frozen=True)
class DistilledRows:
    """Pairs of texts, rows of ``tokens`` and of the teacher's vectors."""

    tokens: Tokens
    first: NDArray[np.int64]  # (N,)
    second: NDArray[np.int64]  # (N,)
    vectors: NDArray[np.float32]  # of the teacher, of unit length


def distilled_rows(
    corpus: Corpus, tokenizer: TextTokenizer, teacher: Teacher, recipe: Distilled
) -> DistilledRows:
    """Return training pairs of every kind but words: the same in every run, so that a cache serves
    all.
    """
    pairs = pairs_of_texts(corpus)
    chosen = generator_of(0, DistilledStage.name, 0).permutation(len(pairs))[: recipe.pairs]
    texts, tokens, first, second = tokenised(pairs.take(np.sort(chosen)), tokenizer, recipe.longest)
    vectors = teacher.vectors(texts)
    if vectors is None:
        raise RunError(f"{teacher.name} has no vectors to learn from")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(norms).all():
        raise RunError(f"{teacher.name}: vectors that are not finite")
    units = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    return DistilledRows(tokens, first, second, units)


class DistilledStage:
    """Learns the teacher's cosines of all first texts of a batch and all second ones."""

    name = "distilled"

    def __init__(
        self, network: JinaBert, rows: DistilledRows, recipe: Distilled, seed: int
    ) -> None:
        self.steps, self.learning_rate = recipe.steps, recipe.learning_rate
        self._network, self._rows, self._recipe, self._seed = network, rows, recipe, seed

    def loss(self, step: int) -> Tensor:
        rows, generator = self._rows, generator_of(self._seed, self.name, step)
        drawn = generator.permutation(len(rows.first))[: self._recipe.batch_size]
        first, second = rows.first[drawn], rows.second[drawn]
        wanted = torch.from_numpy(rows.vectors[first] @ rows.vectors[second].T)
        both = np.concatenate((first, second))
        a, b = embed_batch(self._network, rows.tokens, both).chunk(2)
        return objectives.relations(a, b, wanted)
