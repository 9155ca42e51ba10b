"""Contents: vectors of an item feature by their origin, the encoder and map that made them.

The vector of a dense item feature may be given, or come from an item's texts; then it carries the
digest of its encoder and map (``text.runtime.content.content_digest``). While models and encoders
are exchanged, an item may hold two such vectors beside a given one: its row has the newest, and a
reader asks for the one that its model wants.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_store.errors import ContentMismatch

GIVEN = 0  # origin of a vector without a digest
ENCODED = 2  # vectors of an item that are kept, under different digests
OTHERS = 2  # vectors of an item beside its row's: a given one may be kept, too
DIGEST_PATTERN = r"^[0-9a-f]{16}$"
Mask = NDArray[np.bool_]
Digests = NDArray[np.uint64]  # GIVEN, or the number of a digest
Rows = NDArray[np.void]


def digest_number(digest: str) -> int:
    """Return the number of a digest, 16 hexadecimal digits. ValueError."""
    if not re.fullmatch(DIGEST_PATTERN, digest) or not (number := int(digest, 16)):
        raise ValueError(f"{digest!r} is not a digest of a content: 16 hexadecimal digits")
    return number


def digest_text(number: int) -> str | None:
    """Return the digest of a number; None if the vector was given."""
    return None if number == GIVEN else f"{number:016x}"


@dataclass(frozen=True, slots=True)
class Origin:
    """The encoder and map that vectors of a feature come from."""

    feature: str  # dense item feature
    digest: str  # 16 hexadecimal digits

    @property
    def number(self) -> int:
        return digest_number(self.digest)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The content that a reader asks for. ``given``: a given vector will do where there is none."""

    origin: Origin
    given: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Contents:
    """Origins of N items' vectors of one feature, and the vectors that their rows do not have."""

    feature: str
    row: Digests  # (N,) origin of the vector in the item's row
    count: NDArray[np.uint8]  # (N,) vectors beside it, newest first
    others: Digests  # (N, OTHERS)
    vectors: NDArray[np.floating]  # (N, OTHERS, size), as stored

    @classmethod
    def of(cls, feature: str, row: Digests, dtype: np.dtype[np.void]) -> Contents:
        """Contents of items that have a vector in their row alone. ``dtype``: the rows'."""
        field, n = dtype[feature], len(row)
        vectors = np.zeros((n, OTHERS, *field.shape), field.base)
        return cls(feature, row, np.zeros(n, np.uint8), np.zeros((n, OTHERS), np.uint64), vectors)

    @classmethod
    def all_of(cls, origin: Origin, count: int, dtype: np.dtype[np.void]) -> Contents:
        """Contents of items whose vectors are of one origin."""
        return cls.of(origin.feature, np.full(count, origin.number, np.uint64), dtype)

    def __len__(self) -> int:
        return len(self.row)

    def take(self, places: NDArray[np.integer] | NDArray[np.bool_]) -> Contents:
        """Return the contents of these items."""
        return Contents(
            self.feature,
            self.row[places],
            self.count[places],
            self.others[places],
            self.vectors[places],
        )

    def each(self, place: int) -> Iterator[tuple[int, NDArray[np.floating]]]:
        """Yield origin and vector of what an item has beside its row."""
        count = int(self.count[place])
        yield from zip(self.others[place, :count].tolist(), self.vectors[place], strict=False)

    def digests(self, place: int) -> list[str | None]:
        """Return the origins of an item's vectors, its row's first; None: given."""
        origins = [int(self.row[place]), *(origin for origin, _ in self.each(place))]
        return [digest_text(origin) for origin in origins]

    def renewed(self, before: Rows, after: Rows, origin: int) -> Contents:
        """Return the contents of one item, (1,), whose row is now ``after``, of ``origin``.

        Of the vectors it had, those of other origins are kept: the newest encoded ones, ENCODED in
        all, and a given one unless it is all zero or the new one.
        """
        vectors = [(int(self.row[0]), before[self.feature][0]), *self.each(0)]
        unneeded = (bytes(before[self.feature].nbytes), after[self.feature].tobytes())
        kept, encoded = list[tuple[int, NDArray[np.floating]]](), int(origin != GIVEN)
        for other, values in vectors:
            if other == origin or (other == GIVEN and values.tobytes() in unneeded):
                continue
            if other != GIVEN:
                encoded += 1
            if other == GIVEN or encoded <= ENCODED:
                kept.append((other, values))
        found = Contents.of(self.feature, np.array([origin], np.uint64), after.dtype)
        found.count[0] = len(kept)
        for at, (other, values) in enumerate(kept):
            found.others[0, at], found.vectors[0, at] = other, values
        return found


def check_feature(contents: Contents, origin: Origin) -> None:
    """Raise ContentMismatch if contents of another feature would be added."""
    if contents.feature != origin.feature:
        raise ContentMismatch(
            f"the item has contents of {contents.feature}, not of {origin.feature}: an item has "
            "those of one feature"
        )


def choose(rows: Rows, contents: Contents | None, wanted: Wanted) -> tuple[Rows, Mask]:
    """Return the rows (N,) with the content that is wanted, and which items lack it.

    What they have instead, of another origin, becomes 0.
    """
    feature, number = wanted.origin.feature, np.uint64(wanted.origin.number)
    chosen = rows.copy()
    own = np.zeros(len(rows), np.uint64)
    if contents is not None and contents.feature == feature:
        own = contents.row
    right: Mask = own == number
    if contents is not None and contents.feature == feature:
        _take_from(chosen, contents, ~right, number, right)
    if wanted.given:
        there = ~right & (own == GIVEN)
        right |= there & chosen[feature].any(axis=-1)
        if contents is not None and contents.feature == feature:
            _take_from(chosen, contents, ~right, np.uint64(GIVEN), right)
    chosen[feature][~right] = 0
    return chosen, ~right


def _take_from(rows: Rows, contents: Contents, where: Mask, number: np.uint64, right: Mask) -> None:
    """Put the other vectors of an origin into the rows of ``where``; mark those in ``right``."""
    for at in range(OTHERS):
        has = where & (at < contents.count) & (contents.others[:, at] == number)
        rows[contents.feature][has] = contents.vectors[has, at]
        right |= has
