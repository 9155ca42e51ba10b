"""Reads the text ids of numbers back from a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from feature_store.contract import FeatureStore, Ids
from feature_store.text_ids import shown

AT_ONCE = 8192  # numbers of one request

Id = int | str  # a text; an integer in a numeric store, and for a number without a text


async def item_texts(store: FeatureStore, numbers: Ids) -> dict[int, str]:
    """Return the text of each number that has one; none in a numeric store."""
    found: dict[int, str] = {}
    if store.text_ids is not None:
        distinct = np.unique(numbers)
        for start in range(0, len(distinct), AT_ONCE):
            part = distinct[start : start + AT_ONCE]
            found |= _present(part.tolist(), await store.item_texts(part))
    return found


async def user_texts(store: FeatureStore, users: Sequence[int]) -> dict[int, str]:
    """The same of users."""
    if store.text_ids is None:
        return {}
    return _present(users, await store.user_texts(users))


def named(numbers: Sequence[int], texts: Mapping[int, str]) -> list[Id]:
    """Replace numbers by their texts."""
    return [texts.get(number, number) for number in numbers]


def printed(store: FeatureStore, identity: Id) -> str:
    """Return an id for a line of output."""
    if isinstance(identity, str):
        return shown(identity)
    return str(identity) if store.text_ids is None else f"(number {identity}, without its text)"


def _present(numbers: Sequence[int], texts: Sequence[str | None]) -> dict[int, str]:
    pairs = zip(numbers, texts, strict=True)
    return {number: text for number, text in pairs if text is not None}
