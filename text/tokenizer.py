"""Trains and runs the byte-level BPE of an encoder (tokenizers; no torch, no network).

The layout is RoBERTa's, as in the published bilingual checkpoints: ``<s>`` 0, ``<pad>`` 1,
``</s>`` 2, ``<unk>`` 3, ``<mask>`` 4; a text becomes ``<s> … </s>``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the library can fetch models; it never does here
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

NAMES = ("bos", "pad", "eos", "unk", "mask")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
START, PAD, END, UNKNOWN, MASK = range(len(SPECIAL))
FILE = "tokenizer.json"


class TokenizerError(ValueError):
    """An unusable tokenizer file; the message names it."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Texts as token ids: text i has ``ids[offsets[i]:offsets[i + 1]]``.

    ``words`` numbers the words of each text from 0, −1 at special tokens.
    """

    ids: NDArray[np.int32]
    words: NDArray[np.int32]
    offsets: NDArray[np.int64]  # (N + 1,)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens of each text."""
        return np.diff(self.offsets)


class TextTokenizer:
    """Encodes texts to token ids, with special tokens, cut at a longest length."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # A token has at least one byte, and at most this many characters: what lies behind cannot
        # be among the first tokens, so that it is cut before it is tokenised.
        self._widest = max((len(token) for token in tokenizer.get_vocab()), default=1)

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int) -> TextTokenizer:
        """Train on texts. Raises TokenizerError where they are too few for the vocabulary."""
        tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        found = tokenizer.get_vocab_size()
        if found != vocabulary:
            raise TokenizerError(
                f"the texts give {found} tokens of {vocabulary}: "
                f"take a larger corpus or sizes.vocabulary={found}"
            )
        tokenizer.post_processor = processors.RobertaProcessing(
            (SPECIAL[END], END), (SPECIAL[START], START), add_prefix_space=False
        )
        return cls(tokenizer)

    @classmethod
    def load(cls, folder: Path) -> TextTokenizer:
        """Read ``tokenizer.json`` of a folder. Raises TokenizerError."""
        path = folder / FILE
        try:
            return cls(Tokenizer.from_str(path.read_text("utf-8")))
        except OSError as error:
            raise TokenizerError(f"{path}: {error.strerror}") from error
        except Exception as error:  # the library raises Exception itself
            raise TokenizerError(f"{path}: not a tokenizer: {error}") from error

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, last and whole, and what other loaders want beside it."""
        names = {f"{name}_token": token for name, token in zip(NAMES, SPECIAL, strict=True)}
        config = names | {
            "tokenizer_class": "RobertaTokenizer",
            "add_prefix_space": False,
            "cls_token": SPECIAL[START],
            "sep_token": SPECIAL[END],
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
        tokens = names | {"cls_token": SPECIAL[START], "sep_token": SPECIAL[END]}
        (folder / "special_tokens_map.json").write_text(json.dumps(tokens, indent=1) + "\n")
        new = folder / f"{FILE}.new"
        new.write_text(self._tokenizer.to_str(pretty=True), "utf-8")
        new.replace(folder / FILE)

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self._tokenizer.get_vocab_size())

    def encode(self, texts: Sequence[str], longest: int) -> Tokens:
        """Encode texts to at most ``longest`` tokens each, special tokens included."""
        room = longest - 2
        cut = [text[: room * self._widest] for text in texts]
        ids, words, lengths = [], [], []
        for encoding in self._tokenizer.encode_batch(cut, add_special_tokens=False):
            own = np.asarray(encoding.ids[:room], np.int32)
            word = [-1 if w is None else w for w in encoding.word_ids[:room]]
            ids.append(np.concatenate(([START], own, [END])).astype(np.int32))
            words.append(np.concatenate(([-1], word, [-1])).astype(np.int32))
            lengths.append(len(own) + 2)
        return Tokens(
            np.concatenate(ids) if ids else np.empty(0, np.int32),
            np.concatenate(words) if words else np.empty(0, np.int32),
            np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64),
        )
