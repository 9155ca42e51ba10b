"""Assigns groups to splits by their hash, so that every corpus divides them alike."""

from __future__ import annotations

import hashlib

from text.corpus.entry import Split

SPLITS: tuple[Split, ...] = ("test", "valid", "train")  # the first that has a text keeps it
SHARES = {"test": 0.10, "valid": 0.05, "train": 0.85}
SEED = "split-1"


def hash_of(text: str, size: int = 8) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=size).digest(), "little")


def split_of(group: str) -> Split:
    """Return the split of a group: uniform over groups, independent of order and of others."""
    at = hash_of(f"{SEED}\0{group}") / 2**64
    if at < SHARES["test"]:
        return "test"
    return "valid" if at < SHARES["test"] + SHARES["valid"] else "train"
