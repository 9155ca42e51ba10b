"""A small encoder with random weights, its checkpoint and its bundle."""

from __future__ import annotations

from pathlib import Path

from tests.text.encoder.test_jinabert import random_network
from text.encoder.checkpoint import save
from text.encoder.sizes import EncoderSizes, Variant
from text.tokenizer import TextTokenizer

WORDS = "the tree of house and das Haus mit dem Baum under über niño árbol".split()  # noqa: SIM905
LONGEST = 300
BLOCKWISE = 2048  # a text that is longer than a row: golden texts of 8,192 cost 20 s


def sizes(variant: Variant = "base", **others: object) -> EncoderSizes:
    return EncoderSizes.model_validate(
        {"variant": variant, "vocabulary": 280, "hidden": 24, "heads": 3, "layers": 2}
        | {"intermediate": 16, "norm_epsilon": 1e-6}
        | others
    )


def checkpoint(folder: Path, variant: Variant = "base") -> Path:
    tokenizer = TextTokenizer.train((" ".join(WORDS) for _ in range(9)), 280)
    recipe = {"masked": {"steps": 9, "longest": 64}, "pairs": {"steps": 0, "longest": 512}}
    training = {"recipe": recipe, "corpus": {"digest": "c0ffee", "languages": ["en", "de"]}}
    save(folder, random_network(sizes(variant), 1).float(), None, tokenizer, training)
    return folder
