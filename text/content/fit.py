"""Fits content maps: principal components of items' vectors, or a ridge into a given feature."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from feature_store.parquet.columns import DataFileError
from text.content.items import EncodedItems, ItemTexts, encode
from text.content.moments import FOLDS, Components, Moments, ridge
from text.runtime.content import TEXT, Affine, ContentMap, MapAbout, PartAbout
from text.runtime.encoder import TextEncoder

BATCH = 2048
LEAST_ITEMS = 60
MOST_GIVEN = 3  # kinds of given vectors: 15 combinations
GROUPS = FOLDS + 1
Floats = NDArray[np.float64]
Combination = tuple[str, ...]


def fit(
    encoder: TextEncoder,
    items: ItemTexts,
    feature: str,
    *,
    into: str | None = None,
    size: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> ContentMap:
    """Fit a map to items: with ``into``, a column of ``items.given``, a ridge into its numbers;
    else ``size`` principal components. Raises DataFileError."""
    if TEXT in items.given:
        raise DataFileError(f"column {TEXT} of vectors: the texts' own are called so; rename it")
    inputs = {TEXT: encoder.width}
    inputs |= {name: items.size(name) for name in items.given if name != into}
    if len(inputs) > MOST_GIVEN + 1:
        raise DataFileError(f"{len(inputs) - 1} columns of given vectors, at most {MOST_GIVEN}")
    width = sum(inputs.values())
    if not into and size and size > width:  # as Components, without the items
        why = f"the vectors vary in at most {width} directions, and {size} are asked for"
        raise DataFileError(f"--size {size}: {why}")
    seen = SeenItems(inputs, items.size(into) if into else 0)
    for batch in items.batches(BATCH):
        encoded = encode(encoder, batch)
        given = {name: column for name, column in batch.given.items() if name != into}
        digests = replace(batch, given=given).digests("")  # equal items are in one group
        groups = np.array([int.from_bytes(digest[:8], "big") % GROUPS for digest in digests])
        seen.add(encoded, groups, into)
        advance(batch.start + len(batch))
    parts = dict(seen.regressions() if into else seen.components(size or 0))
    mean, covariance = seen.targets.means + seen.outputs, seen.targets.covariance
    outputs = len(mean)
    about = MapAbout(
        method="ridge" if into else "pca",
        network=encoder.bundle.network,
        feature=feature,
        size=outputs,
        inputs=inputs,
        parts=tuple(about for about, _ in parts.values()),
    )
    affine = {has: part for has, (_, part) in parts.items()}
    return ContentMap(about, affine, mean, np.sqrt(np.maximum(np.diag(covariance), 0)))


class SeenItems:
    """Second moments of rows [1 | x | y], by what the items have and by group.

    x and y are taken from those of the first item: a variance is the difference of two moments, and
    numbers that are far from 0, or all alike, would leave rounding in its place.
    """

    def __init__(self, inputs: dict[str, int], outputs: int) -> None:
        self.inputs = inputs
        starts = np.cumsum([1, *inputs.values()]).tolist()
        self._columns = {
            name: slice(start, start + size)
            for start, (name, size) in zip(starts[:-1], inputs.items(), strict=True)
        }
        self._end, self._numbers = starts[-1], starts[-1] + outputs
        self._origin = np.zeros(self._numbers)
        self._placed: set[str] = set()  # modalities whose origin is known
        self._grams: dict[Combination, Floats] = {}  # (GROUPS, numbers, numbers)
        self.targets = Moments(np.zeros((1, 1)), 0)  # of y, after the parts are solved
        self.outputs: Floats | float = 0.0  # origin of y

    def add(self, encoded: EncodedItems, groups: NDArray[np.integer], into: str | None) -> None:
        rows = np.zeros((len(groups), self._numbers))
        rows[:, 0] = 1
        for name, columns in self._columns.items():
            rows[:, columns] = self._placed_by(name, columns, encoded)
        taken = np.ones(len(rows), np.bool_)
        if into:
            outputs = slice(self._end, self._numbers)
            rows[:, outputs], taken = self._placed_by(into, outputs, encoded), encoded.has[into]
        has = np.stack([encoded.has[name] for name in self.inputs], axis=1)  # (N, modalities)
        for pattern in np.unique(has[taken], axis=0):
            alike = taken & (has == pattern).all(1)
            names = tuple(name for name, own in zip(self.inputs, pattern, strict=True) if own)
            if not names:
                continue
            shape = (GROUPS, self._numbers, self._numbers)
            gram = self._grams.setdefault(names, np.zeros(shape))
            for group in range(GROUPS):
                own = rows[alike & (groups == group)]
                gram[group] += own.T @ own

    def _placed_by(self, name: str, columns: slice, encoded: EncodedItems) -> Floats:
        """Return vectors (N, X) from the origin, which the first item that has one gives."""
        has = encoded.has[name]
        if name not in self._placed and has.any():
            self._origin[columns] = encoded.vectors[name][has.argmax()]
            self._placed.add(name)
        placed: Floats = encoded.vectors[name] - self._origin[columns]
        return placed

    def _affine(self, weight: Floats, bias: Floats, own: NDArray[np.integer]) -> Affine:
        """Return a part, fitted from the origin, for vectors as they are."""
        outputs = self._origin[self._end :] if len(self._origin) > self._end else 0.0
        return Affine(weight, bias - self._origin[own] @ weight + outputs)

    def regressions(self) -> Iterator[tuple[Combination, tuple[PartAbout, Affine]]]:
        """Solve a ridge for each combination, from all items that have its modalities."""
        for has in self._combinations():
            folds = sum(
                (gram for names, gram in self._grams.items() if set(has) <= set(names)),
                np.zeros((GROUPS, self._numbers, self._numbers)),
            )
            if _enough(folds, has):
                yield has, self._regressed(folds, has)
        total = sum(gram.sum(0) for gram in self._grams.values())
        self.targets = _of(np.asarray(total), [0, *range(self._end, self._numbers)], 0)
        self.outputs = self._origin[self._end :]

    def components(self, size: int) -> Iterator[tuple[Combination, tuple[PartAbout, Affine]]]:
        """Compute principal components of items that have every modality, and for each other
        combination a ridge into them."""
        every = tuple(self.inputs)
        folds = self._grams.get(every, np.zeros((GROUPS, self._end, self._end)))
        if not _enough(folds, every):
            raise DataFileError(f"fewer than {LEAST_ITEMS} items have {' and '.join(every)}")
        scale = self._scale()
        try:
            found = Components.of(Moments(_scaled(folds.sum(0), scale), self._end - 1), size)
        except ValueError as error:
            raise DataFileError(f"--size {size}: {error}") from None
        whole = Affine(found.weight * scale[1 : self._end, None], found.bias)
        about = PartAbout(
            has=every,
            items=int(folds[:, 0, 0].sum()),
            penalty=None,
            r2=None,
            explained=found.explained,
        )
        # [1 | x] @ extend = [1 | x | y]
        extend = np.hstack([np.eye(self._end), np.vstack([whole.bias, whole.weight])])
        extended = extend.T @ folds @ extend
        self._numbers = self._end + size
        for has in self._combinations():
            if has == every:
                yield has, (about, self._affine(whole.weight, whole.bias, np.arange(1, self._end)))
            else:
                yield has, self._regressed(extended, has)
        self.targets = _of(extended.sum(0), [0, *range(self._end, self._numbers)], 0)

    def _regressed(self, folds: Floats, has: Combination) -> tuple[PartAbout, Affine]:
        scale = self._scale()
        own = np.concatenate([np.arange(self._numbers)[self._columns[name]] for name in has])
        places = [0, *own.tolist(), *range(self._end, self._numbers)]
        found = ridge(_scaled(folds, scale)[:, places][:, :, places], len(own))
        about = PartAbout(
            has=has,
            items=int(folds[:, 0, 0].sum()),
            penalty=found.penalty,
            r2=found.r2,
            explained=None,
        )
        return about, self._affine(found.weight * scale[own, None], found.bias, own)

    def _scale(self) -> Floats:
        """Return factors of a row, so that each modality has a total variance of 1."""
        factors = np.ones(self._numbers)
        for name, columns in self._columns.items():
            grams = [gram.sum(0) for names, gram in self._grams.items() if name in names]
            places = [0, *range(columns.start, columns.stop)]
            variance = np.trace(_of(np.asarray(sum(grams)), places, 0).covariance) if grams else 0
            if variance > 0:
                factors[columns] = 1 / np.sqrt(variance)
        return factors

    def _combinations(self) -> Iterator[Combination]:
        for count in range(1, len(self.inputs) + 1):
            yield from combinations(self.inputs, count)


def _of(gram: Floats, places: list[int], inputs: int) -> Moments:
    return Moments(gram[np.ix_(places, places)], inputs)


def _scaled(grams: Floats, factors: Floats) -> Floats:
    scaled: Floats = grams * np.outer(factors, factors)
    return scaled


def _enough(folds: Floats, has: Combination) -> bool:
    """Whether there are items of a combination to fit and to measure its part."""
    counts = folds[:, 0, 0]
    if counts.sum() >= LEAST_ITEMS and (counts > 1).all():
        return True
    if has == (TEXT,):
        raise DataFileError(
            f"{int(counts.sum())} items have texts and the numbers to fit to, {LEAST_ITEMS} of "
            "different texts are the least"
        )
    return False
