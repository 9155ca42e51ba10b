"""Makes golden answers: texts of every length class, encoded by PyTorch in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from text.encoder.jinabert import JinaBert
from text.runtime.encoder import SPECIAL
from text.runtime.golden import GoldenTexts
from text.tokenizer import TextTokenizer, Tokens

CLASSES = (4, 6, 10, 18, 33, 65, 130, 260, 513, 1030, 2050)  # tokens, about; and the longest
ODD = ("a", " ", "ß", "\u200b", "e\u0301", "漢字かな", "🙂🙃", "\x00\x07", "a\nb\tc", "</s> <mask>")
LETTERS = "abcdefghijklmnopqrstuvwxyzäöüßáéíñABCDE0123456789.,-"
WORDS = (
    "the", "package", "installs", "which", "library", "is", "used", "by", "other", "programs",
    "die", "Bibliothek", "wird", "von", "Programmen", "verwendet", "una", "biblioteca", "para",
)  # fmt: skip


def golden_texts(network: JinaBert, tokenizer: TextTokenizer, longest: int) -> GoldenTexts:
    """Compute golden answers; ``network`` in eval mode."""
    random = np.random.default_rng(0)
    classes = sorted({*(n for n in CLASSES if n < longest), longest})
    texts = [*ODD, *(_text_of(n, tokenizer, random) for n in classes)]
    lengths = tokenizer.encode(texts, longest + 1).lengths
    # WordPiece drops some characters; of a small vocabulary an odd text is many tokens.
    are_read = (lengths > SPECIAL) & (lengths <= longest)
    texts = [text for text, is_read in zip(texts, are_read, strict=True) if is_read]
    tokens = tokenizer.encode(texts, longest + 1)
    return GoldenTexts.of(texts, tokens.lengths, exact(network, tokens))


def exact(network: JinaBert, tokens: Tokens) -> NDArray[np.float64]:
    """Return unit vectors (N, D) by PyTorch in float64, each text alone."""
    double = copy.deepcopy(network).double()
    vectors = []
    with torch.inference_mode():
        for start, stop in zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True):
            ids = torch.from_numpy(tokens.ids[start:stop].astype(np.int64))[None]
            vector = double.embed(ids, torch.tensor([ids.shape[1]]))
            vectors.append(F.normalize(vector, dim=-1)[0].numpy())
    return np.stack(vectors)


def _text_of(tokens: int, tokenizer: TextTokenizer, random: np.random.Generator) -> str:
    """Return a text of at most, and nearly, so many tokens."""
    words = list(_words(tokens, random))
    least, most = 1, len(words)  # the prefix wanted has least … most words
    while least < most:
        middle = (least + most + 1) // 2
        length = tokenizer.encode([" ".join(words[:middle])], tokens + 1).lengths[0]
        least, most = (middle, most) if length <= tokens else (least, middle - 1)
    return " ".join(words[:least])


def _words(count: int, random: np.random.Generator) -> Iterator[str]:
    """Yield words: every other one of a language, the others of random letters."""
    for i in range(count):
        if i % 2 == 0:
            yield WORDS[random.integers(len(WORDS))]
        else:
            yield "".join(random.choice(list(LETTERS), random.integers(1, 9)))
