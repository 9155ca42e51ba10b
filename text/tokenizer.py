"""Trains byte-level BPE, and runs tokenizers of that and other kinds (no torch, no network).

Our own have RoBERTa's layout, as the published bilingual checkpoints do: ``<s>`` 0, ``<pad>`` 1,
``</s>`` 2, ``<unk>`` 3, ``<mask>`` 4; a text becomes ``<s> … </s>``, and its first word has a space
before it, as it has within a text. Of any other (WordPiece: ``[CLS] … [SEP]``) the ids are those of
its file.
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

from tokenizers import (
    Encoding,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
START, PAD, END, UNKNOWN, MASK = range(len(SPECIAL))
FILE = "tokenizer.json"
BY_ROLE = {"pad": ("<pad>", "[PAD]"), "unk": ("<unk>", "[UNK]"), "mask": ("<mask>", "[MASK]")}
PIECE = 32_768  # characters of a long text that are tokenised at first
FAR = 64  # tokens: a word of any length is merged alike at so many before its cut
BATCH = 16_384  # texts tokenised together: encodings are far larger than their ids


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
    pad: int = PAD  # id between texts of a padded batch

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens of each text."""
        return np.diff(self.offsets)

    def of(self, text: int) -> NDArray[np.int32]:
        """Return a text's ids (L,)."""
        return self.ids[self.offsets[text] : self.offsets[text + 1]]

    def take(self, texts: NDArray[np.int64]) -> Tokens:
        """Return those of the texts, in this order."""
        places = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in texts.tolist()]
        taken = np.concatenate(places) if places else np.empty(0, np.int64)
        offsets = np.concatenate(([0], np.cumsum(self.lengths[texts]))).astype(np.int64)
        return Tokens(self.ids[taken], self.words[taken], offsets, self.pad)


class TextTokenizer:
    """Encodes texts to token ids, with special tokens, cut at a longest length."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Run a tokenizer. Raises TokenizerError where it puts no token at each end of a text."""
        tokenizer.no_truncation()  # published files may cut at 512 and pad
        tokenizer.no_padding()
        vocabulary = tokenizer.get_vocab()
        self._tokenizer = tokenizer
        self.vocabulary = max(vocabulary.values(), default=-1) + 1  # rows that the ids need
        self._widest = max(map(len, vocabulary), default=1)  # characters of a token
        probe = tokenizer.encode("a")
        added = np.flatnonzero(probe.special_tokens_mask).tolist()
        if added != [0, len(probe.tokens) - 1]:
            raise TokenizerError(
                f"its post-processor adds {len(added)} tokens to a text: one before it and one "
                "after are needed, as <s> … </s> or [CLS] … [SEP]"
            )
        self.start, self.end = probe.ids[0], probe.ids[-1]
        self.special = {"cls": probe.tokens[0], "sep": probe.tokens[-1]}  # by role
        for role, names in BY_ROLE.items():
            if present := [name for name in names if name in vocabulary]:
                self.special[role] = present[0]
        self.pad = vocabulary.get(self.special.get("pad", ""), self.start)
        described = json.loads(tokenizer.to_str())
        self._splits = described["pre_tokenizer"] or {"type": None}
        self._is_normalised = described["normalizer"] is not None
        self.is_lowercase = (described["normalizer"] or {}).get("type") == "Lowercase"
        # Byte-level tokens are made of all of a text's characters; WordPiece loses spaces, and a
        # word of any length may become one [UNK].
        self._is_lossless = "ByteLevel" in str(self._splits) and described["normalizer"] in (
            None,
            {"type": "Lowercase"},  # no character becomes none
        )

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary: int, lowercase: bool = False) -> TextTokenizer:
        """Train on texts. Raises TokenizerError where they are too few for the vocabulary."""
        tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[UNKNOWN]))
        if lowercase:
            tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        found = tokenizer.get_vocab_size()
        if found > vocabulary:  # the bytes and the special tokens
            raise TokenizerError(
                f"{vocabulary} tokens are too few: give --set sizes.vocabulary={found}"
            )
        if found < vocabulary:
            raise TokenizerError(
                f"the texts give {found} tokens of {vocabulary}: "
                f"take a larger corpus or give --set sizes.vocabulary={found}"
            )
        tokenizer.post_processor = processors.RobertaProcessing(
            (SPECIAL[END], END), (SPECIAL[START], START), trim_offsets=False
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
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from error
        except Exception as error:  # the library raises Exception itself
            raise TokenizerError(f"{path}: not a tokenizer: {error}") from error

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, last and whole, and what other loaders want beside it."""
        tokens = {f"{role}_token": token for role, token in self.special.items()}
        kind = {"tokenizer_class": "PreTrainedTokenizerFast"}
        if self._splits["type"] == "ByteLevel" and not self._is_normalised:
            tokens |= {"bos_token": self.special["cls"], "eos_token": self.special["sep"]}
            space = self._splits["add_prefix_space"]
            kind = {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": space}
        (folder / "tokenizer_config.json").write_text(json.dumps(tokens | kind, indent=1) + "\n")
        (folder / "special_tokens_map.json").write_text(json.dumps(tokens, indent=1) + "\n")
        new = folder / f"{FILE}.new"
        new.write_text(self._tokenizer.to_str(pretty=True), "utf-8")
        new.replace(folder / FILE)

    def encode(self, texts: Sequence[str], longest: int) -> Tokens:
        """Encode texts to at most ``longest`` tokens each, special tokens included."""
        room = longest - 2
        ids, words, lengths = [], [], []
        parts = (texts[at : at + BATCH] for at in range(0, len(texts), BATCH))
        for encoding in (each for part in parts for each in self._first(part, room)):
            own = np.asarray(encoding.ids[:room], np.int32)
            word = [-1 if w is None else w for w in encoding.word_ids[:room]]
            ids.append(np.concatenate(([self.start], own, [self.end])).astype(np.int32))
            words.append(np.concatenate(([-1], word, [-1])).astype(np.int32))
            lengths.append(len(own) + 2)
        return Tokens(
            np.concatenate(ids) if ids else np.empty(0, np.int32),
            np.concatenate(words) if words else np.empty(0, np.int32),
            np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64),
            self.pad,
        )

    def encode_placed(self, text: str, longest: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Encode a text as ``encode`` does: ids (L,) and their characters [start, end) (L, 2).

        Special tokens have −1, −1; the space before a word is not among its token's characters.
        """
        (encoding,) = self._first([text], room := longest - 2)
        special = [(-1, -1)]
        trimmed = [
            (end - len(text[start:end].lstrip(" ")), end) for start, end in encoding.offsets[:room]
        ]
        places = np.array([*special, *trimmed, *special], np.int64)
        return np.array([self.start, *encoding.ids[:room], self.end], np.int32), places

    def _first(self, texts: Sequence[str], room: int) -> list[Encoding]:
        """Tokenise as much of each text as its first ``room`` tokens need.

        A text is cut before it is tokenised, since what lies behind cannot be among them; where
        the piece gives too few, a piece of twice the length is taken. A character may be four
        tokens: a piece that certainly has enough could have a hundred times as many.
        """
        found: list[Encoding | None] = [None] * len(texts)
        left = list(range(len(texts)))
        taken = max(1, min(room * self._widest, max(room, PIECE)))
        while left:
            pieces = [texts[row][:taken] for row in left]
            encodings = self._tokenizer.encode_batch(pieces, add_special_tokens=False)
            for row, encoding in zip(left, encodings, strict=True):
                if len(texts[row]) <= taken or self._is_settled(encoding, room, taken):
                    found[row] = encoding
            left = [row for row in left if found[row] is None]
            taken *= 2
        return [encoding for encoding in found if encoding is not None]

    def _is_settled(self, encoding: Encoding, room: int, taken: int) -> bool:
        """Tell whether a text's first tokens are those of its first ``taken`` characters.

        Those of the last word may not be, unless they lie far before the cut.
        """
        words = encoding.word_ids
        if len(words) - (words.count(words[-1]) if words else 0) >= room:
            return True
        if not self._is_lossless or len(words) < room:
            return False
        _, end = encoding.token_to_chars(max(0, room - 1)) or (0, taken)
        return taken >= room * self._widest or end <= taken - FAR * self._widest
