"""Draws random records of features, as a store keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.schema import Categorical, CategoricalList, Dense


def records(
    features: Iterable[Categorical | CategoricalList | Dense],
    dtype: np.dtype[Any],
    count: int,
    dense_scale: float,
    random: np.random.Generator,
) -> NDArray[np.void]:
    """(count,) records of known indices, lists of one to all slots, and normal numbers."""
    rows = np.zeros(count, dtype)
    for feature in features:
        match feature:
            case Categorical():
                rows[feature.name] = random.integers(1, feature.vocabulary, count)
            case CategoricalList():
                indices = random.integers(1, feature.vocabulary, (count, feature.slots))
                in_use = random.integers(1, feature.slots, count, endpoint=True)
                padding = np.arange(feature.slots) < feature.slots - in_use[:, None]
                rows[feature.name] = np.where(padding, 0, indices)
            case Dense():
                rows[feature.name] = random.normal(0, dense_scale, (count, feature.size))
    return rows
