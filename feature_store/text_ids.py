"""Numbers text ids: a store of text ids keeps 63-bit numbers, as any other, and their texts.

The number of a text is a keyed BLAKE2b digest (RFC 7693), so it is found without asking the store,
and is the same in every process. The key is random and recorded in the store: texts that share a
number cannot be sought in advance. The store refuses a write that would give one number to two
texts; a text that is not in the store is taken for one of N that are with probability N / 2⁶³.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from feature_store.errors import StoreMismatch

KEY_BYTES = 16
LONGEST = 128  # characters of a text id
KEPT = 1 << 17  # numbers remembered by a process


class TextIds:
    """Numbers of one store's text ids."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._keyed = hashlib.blake2b(digest_size=8, key=key)
        self.number = lru_cache(KEPT)(self._number)
        """Return the text's number, 0 … 2⁶³−1. The text is taken as it is; ``checked_text``."""

    def _number(self, text: str) -> int:
        return int.from_bytes(self._digest(text.encode()), "big") >> 1

    def _digest(self, text: bytes) -> bytes:
        hashed = self._keyed.copy()
        hashed.update(text)
        return hashed.digest()

    def numbers(self, texts: Collection[str]) -> NDArray[np.int64]:
        """(N,) numbers of N texts, in their order."""
        return np.fromiter(map(self.number, texts), np.int64, len(texts))

    def bulk_numbers(self, texts: Collection[bytes]) -> NDArray[np.int64]:
        """(N,) numbers of N texts in UTF-8, without remembering them: for files."""
        digests = np.frombuffer(b"".join(map(self._digest, texts)), ">u8")
        return (digests >> np.uint64(1)).astype(np.int64)


def new_key() -> bytes:
    """Draw the key of a new store."""
    return secrets.token_bytes(KEY_BYTES)


def checked_text(text: str, what: str) -> str:
    """Return the text id. Raises ValueError if it is empty, too long or not Unicode text."""
    if not 1 <= len(text) <= LONGEST:
        raise ValueError(f"{what}: {len(text)} characters instead of 1 to {LONGEST}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what}: not Unicode text (a lone surrogate)") from error
    return text


def check_texts(
    place: str, text_ids: TextIds | None, users: NDArray[np.int64], texts: Mapping[int, str] | None
) -> None:
    """Raise StoreMismatch if texts are given to a numeric store, ValueError if one is missing."""
    if text_ids is None:
        if texts:
            raise StoreMismatch(f"{place}: its ids are numeric: texts are not kept")
        return
    for user in users.tolist():
        if texts is None or user not in texts:
            raise ValueError(f"user id {user}: its text is missing")


def shown(text: str) -> str:
    """Return the text id for a line of output: quoted if it has spaces or cannot be printed."""
    return text if text.isprintable() and not set(text) & set(" '\"\\") else repr(text)
