"""Measures the accuracy of masked words by length of text, on the same words at every length.

Held-out long documents of a language, one after the other, are cut into texts of the longest
length; shorter texts are pieces of those. Words are masked once, so that only context differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from text.ablate.recipe import Length
from text.corpus.corpus import Corpus
from text.encoder.jinabert import JinaBert, MaskedLanguageHead
from text.encoder.run import RunError
from text.tokenizer import MASK, TextTokenizer
from training.progress import OnProgress, no_progress

LENGTHS = (128, 512, 2048, 8192)  # tokens, special tokens included
WHOLE = 1 << 22  # tokens of a document before it is cut
MOST_TOKENS = 8192  # of a batch
HELD_OUT = ("test", "valid")
SEED = 20240226  # of masks: the same for all arms and seeds


@dataclass(frozen=True)
class LongText:
    """A text of the longest length without its special tokens, and which tokens are masked."""

    ids: NDArray[np.int64]  # (N,)
    chosen: NDArray[np.bool_]  # (N,)
    ends: tuple[int, int]  # special tokens before and after


def lengths_to(longest: int) -> list[int]:
    """Return the lengths measured, the longest last."""
    return [length for length in LENGTHS if length < longest] + [longest]


def running_texts(corpus: Corpus, lang: str, splits: Sequence[str]) -> list[str]:
    """Return the long documents of splits, or all texts where there are none."""
    for read in (partial(corpus.documents, "long"), corpus.texts):
        found = [read(lang, split).sort_by("id")["text"].to_pylist() for split in splits]
        if any(found):
            break
    return [text for own in found for text in own]


def long_texts(
    corpus: Corpus, tokenizer: TextTokenizer, lang: str, sizes: Length
) -> list[LongText]:
    """Return held-out texts of ``sizes.longest`` tokens, cut from running texts one by one.

    Raises RunError where those of the language are too short for one.
    """
    room = sizes.longest - 2
    tokens = tokenizer.encode(running_texts(corpus, lang, HELD_OUT), WHOLE)
    own = tokens.words >= 0
    ids, count = tokens.ids[own].astype(np.int64), int(own.sum())
    if count < room:
        raise RunError(
            f"{corpus.folder}: held-out texts in {lang} have {count} tokens, fewer than "
            f"{room}: --set length.longest={count}"
        )
    text = np.repeat(np.arange(len(tokens)), tokens.lengths)
    words = np.stack((text, tokens.words), 1)[own]  # (N, 2): the same row, the same word
    _, number = np.unique(words, axis=0, return_inverse=True)
    share = sizes.masked.share
    chosen = np.random.default_rng(SEED).random(int(number.max()) + 1)[number] < share
    ends = (tokenizer.start, tokenizer.end)
    return [
        LongText(ids[at : at + room], chosen[at : at + room], ends)
        for at in range(0, min(count - room + 1, room * sizes.texts), room)
    ]


def accuracy(
    network: JinaBert,
    head: MaskedLanguageHead,
    texts: Sequence[LongText],
    length: int,
    longest: int,
    on_progress: OnProgress = no_progress,
) -> tuple[int, int]:
    """Return how many masked tokens are predicted, and of how many, in pieces of ``length``.

    The tokens counted lie in a piece of full length at every length up to ``longest``.
    """
    room = length - 2
    scored = min((longest - 2) // (each - 2) * (each - 2) for each in lengths_to(longest))
    right = total = 0
    with torch.inference_mode():
        for number, text in enumerate(texts):
            pieces = len(text.ids) // room
            shown = np.where(text.chosen, MASK, text.ids)[: pieces * room].reshape(pieces, room)
            counted = (text.chosen & (np.arange(len(text.ids)) < scored))[: pieces * room]
            inputs = np.pad(shown, ((0, 0), (1, 1)))
            inputs[:, 0], inputs[:, -1] = text.ends
            picked = np.pad(counted.reshape(pieces, room), ((0, 0), (1, 1)))
            targets = torch.from_numpy(text.ids[: pieces * room][counted])
            found = _predicted(network, head, torch.from_numpy(inputs), torch.from_numpy(picked))
            right, total = right + int((found == targets).sum()), total + len(targets)
            on_progress(f"masked words at {length}", number + 1, len(texts))
    return right, total


def _predicted(
    network: JinaBert, head: MaskedLanguageHead, ids: torch.Tensor, picked: torch.Tensor
) -> torch.Tensor:
    """Return the best token of each place picked (B, L), of texts of one length (B, L)."""
    size = max(1, MOST_TOKENS // ids.shape[1])
    found = []
    for start in range(0, len(ids), size):
        batch = ids[start : start + size]
        vectors = network(batch, torch.full((len(batch),), ids.shape[1]))
        own = vectors[picked[start : start + size]]
        found.append(head(own, network.embeddings.word_embeddings.weight).argmax(-1))
    return torch.cat(found)
