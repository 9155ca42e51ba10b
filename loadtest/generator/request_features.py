"""Draws request features: of bundles, by their schemas and golden answers, or of a parquet file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from model_export.bundle.bundle import Bundle

MOST_ROWS = 100_000  # read of a file
STRANGERS = (2**62, 2**63 - 1)  # numbers of users that the store does not know
Features = dict[str, int | float]


class FeaturesError(ValueError):
    """Request features that cannot be read; the message names the option."""


@dataclass(frozen=True)
class RequestFeatures:
    """The distribution of each feature, or rows of a file."""

    vocabularies: Mapping[str, int] = field(default_factory=dict)  # uniform, index 0 included
    numbers: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # mean, deviation
    rows: Sequence[Features] = ()

    def draw(self, rng: np.random.Generator, count: int, missing: float) -> list[Features]:
        """Draw the features of ``count`` requests, each left out with probability ``missing``."""
        if self.rows:
            drawn = [self.rows[row] for row in rng.integers(len(self.rows), size=count).tolist()]
        else:
            indices = {n: rng.integers(v, size=count) for n, v in self.vocabularies.items()}
            numbers = {n: rng.normal(*of, count) for n, of in self.numbers.items()}
            columns = {n: column.tolist() for n, column in (indices | numbers).items()}
            rows = zip(*columns.values(), strict=True)
            drawn = [dict(zip(columns, row, strict=True)) for row in rows]
        return [{n: v for n, v in row.items() if rng.random() >= missing} for row in drawn]


def read_features(source: str) -> RequestFeatures:
    """Read the features of a bundle, of all bundles in a folder, or the columns of FILE.parquet.

    Of bundles, numbers are drawn with mean and deviation of those in the golden answers, which have
    the training's; of a feature with two vocabularies the smaller one is taken.
    """
    if source.endswith(".parquet"):
        return _of_file(source)
    from model_export.bundle.bundle import Bundle, usable
    from model_export.bundle.errors import BundleError

    path = Path(source)
    try:
        one = (path / "manifest.json").exists()
        bundles = [Bundle.open(path)] if one else list(usable(path, lambda fault: None))
        found = _of_bundles(bundles)
    except BundleError as error:
        raise FeaturesError(f"features: {error}") from error
    if not found.vocabularies and not found.numbers:
        raise FeaturesError(
            f"features: {source} holds no bundle with request features "
            "(expected a bundle, a folder of bundles or FILE.parquet)"
        )
    return found


def _of_bundles(bundles: Sequence[Bundle]) -> RequestFeatures:
    vocabularies, numbers = dict[str, int](), dict[str, tuple[float, float]]()
    for bundle in bundles:
        golden = bundle.golden().features if bundle.schema.request else None
        for feature in bundle.schema.request:
            if feature.kind == "categorical":
                smaller = min(feature.vocabulary, vocabularies.get(feature.name, 2**31))
                vocabularies[feature.name] = smaller
            elif golden is not None:
                values = golden[feature.name]
                numbers[feature.name] = float(np.nanmean(values)), float(np.nanstd(values))
    return RequestFeatures(vocabularies, numbers)


def _of_file(source: str) -> RequestFeatures:
    """Read whole rows; null, NaN and infinity are missing values."""
    from feature_store.parquet.arrays import is_number
    from feature_store.parquet.columns import DataFileError
    from feature_store.parquet.parts import ParquetParts

    try:
        parts = ParquetParts.read(Path(source))
        _, _, columns = next(parts.batches(parts.columns, MOST_ROWS), (0, None, {}))
    except DataFileError as error:
        raise FeaturesError(f"features: {error}") from error
    for name, column in columns.items():
        if not is_number(column.type):
            raise FeaturesError(
                f"features: {source}: column {name} holds {column.type}, not numbers "
                "(every column is a request feature)"
            )
    if not columns:
        raise FeaturesError(f"features: {source} holds no rows")
    values = zip(*(column.to_pylist() for column in columns.values()), strict=True)
    return RequestFeatures(
        rows=[
            {n: v for n, v in zip(columns, row, strict=True) if v is not None and np.isfinite(v)}
            for row in values
        ]
    )
