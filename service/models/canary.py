"""Chooses the users that a canary answers."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from service.models.loaded_model import LoadedModel

WORD = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Canary:
    """A version that answers a share of the users."""

    version: LoadedModel
    share: float
    seed: int  # of the version's name: another canary takes other users

    def takes(self, user_id: int) -> bool:
        """Whether it answers this user, alike in every process; a larger share only adds users."""
        return mix(user_id ^ self.seed) < self.share * WORD


def seed_of(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def mix(word: int) -> int:
    """Mix 64 bits (the finaliser of SplitMix64)."""
    word = (word + 0x9E3779B97F4A7C15) & WORD
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)
