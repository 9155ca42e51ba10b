"""Computes the scores of ``loadtest stub``: a hash of model version, user and item."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.oracle.comparison import Notes, Scores, UnknownVersion

MIXER = np.uint64(0x9E3779B97F4A7C15)


def stub_numbers(ids: Sequence[int | str]) -> NDArray[np.int64]:
    """(N,) numbers of a request's ids; a text's is its checksum."""
    if ids and isinstance(ids[0], str):
        return np.array([zlib.crc32(str(text).encode()) for text in ids], np.int64)
    return np.array(ids, np.int64)


def stub_scores(version: str, user_id: int | str, item_ids: NDArray[np.int64]) -> Scores:
    """Hash version, user and items to (C,) scores in [0, 1)."""
    (user_id,) = stub_numbers([user_id]).tolist()
    name = np.uint64(int.from_bytes(version.encode()[-8:], "little"))
    with np.errstate(over="ignore"):
        mixed = (item_ids.astype(np.uint64) + name) * MIXER ^ np.uint64(user_id)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed ^= mixed >> np.uint64(27)
    return (mixed >> np.uint64(40)) / 2.0**24


@dataclass(frozen=True)
class StubOracle:
    """The scores of a stub without injected errors."""

    versions: tuple[str, ...] = ("stub-1", "stub-2")

    def scores(self, version: str, request: dict[str, Any]) -> Scores:
        if version not in self.versions:
            raise UnknownVersion(version)
        return stub_scores(version, request["user_id"], stub_numbers(request["candidates"]))

    def notes(self, version: str, request: dict[str, Any]) -> Notes:
        """Of a stub that reads no features."""
        return Notes()
