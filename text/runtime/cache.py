"""Caches vectors in memory, by digest of encoder and text: bounded, least recently used out."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

ENTRY_BYTES = 400  # of an entry beside its numbers: key, dictionary, objects


@dataclass(frozen=True, slots=True)
class Entry:
    """One text's answer."""

    vector: NDArray[np.float32]  # (D,)
    tokens: int
    truncated: bool


class VectorCache:
    """Keeps answers to the last texts, in at most so many bytes; for threads and encoders alike."""

    def __init__(self, most_bytes: int) -> None:
        self._most, self._bytes = most_bytes, 0
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @staticmethod
    def key(encoder: str, text: str) -> bytes:
        """Return the key of a text under an encoder's digest."""
        return hashlib.sha256(f"{encoder}\n{text}".encode("utf-8", "surrogatepass")).digest()

    def get(self, key: bytes) -> Entry | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: bytes, entry: Entry) -> None:
        with self._lock:
            if key in self._entries:
                return
            self._entries[key] = entry
            self._bytes += _size(entry)
            while self._bytes > self._most:
                self._bytes -= _size(self._entries.popitem(last=False)[1])


def _size(entry: Entry) -> int:
    return ENTRY_BYTES + entry.vector.nbytes
