"""Makes the users and request features of golden answers: ordinary ones, missing and unknown."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from feature_store.schema import Categorical, CategoricalList, Dense, Numeric
from model_export.bundle.vectors import request_dtype
from model_export.quality.random_records import records
from training.qin import QIN, Standardised

ORDINARY = 16
NO_RECORD = -1
BEYOND = 2**31 - 1


class GoldenUsers:
    """A pool of users, and request features for each golden request."""

    def __init__(self, network: QIN, dense_scale: float, seed: int) -> None:
        self.network, self.schema = network, network.schema
        self.random = np.random.default_rng([seed, 1])  # draws nothing from that of the items
        self.kinds = {"ordinary users": 0}  # the first row of each kind
        pool = [self._ordinary(ORDINARY, dense_scale)]
        for kind, name, value in self._odd_users():
            row = self._ordinary(1, dense_scale)
            row[name] = value
            self.kinds[kind] = sum(map(len, pool))
            pool.append(row)
        self.users = np.concatenate(pool)

    def some(self) -> tuple[int, NDArray[np.void]]:
        """An ordinary user and known request features."""
        user = int(self.random.integers(ORDINARY)) if self.schema.user else NO_RECORD
        return user, self._features()

    def cases(self) -> Iterator[tuple[str, int, NDArray[np.void]]]:
        """A name, a user and request features for every way of not being known."""
        if self.schema.user:
            yield "no user record", NO_RECORD, self._features()
        for kind, row in list(self.kinds.items())[1:]:
            yield f"user: {kind}", row, self._features()
        for feature in self.schema.request:
            beyond = () if isinstance(feature, Numeric) else (feature.vocabulary, BEYOND)
            for value in (_missing(feature), *beyond):
                user, features = self.some()
                features[feature.name] = value
                yield f"request: {feature.name} {value}", user, features
        if self.schema.request:
            features = np.zeros(1, request_dtype(self.schema))
            for feature in self.schema.request:
                features[feature.name] = _missing(feature)
            yield "request: no features", self.some()[0], features
            yield "no user record, no request features", NO_RECORD, features

    def _odd_users(self) -> Iterator[tuple[str, str, float]]:
        for feature in self.schema.user:
            match feature:
                case Categorical():
                    yield f"{feature.name} 0", feature.name, 0
                    yield f"{feature.name} the last", feature.name, feature.vocabulary - 1
                    yield f"{feature.name} out of range", feature.name, feature.vocabulary
                    yield f"{feature.name} far beyond", feature.name, BEYOND
                    yield f"{feature.name} negative", feature.name, -1
                case CategoricalList():
                    yield f"{feature.name} all padding", feature.name, 0
                    yield f"{feature.name} out of range", feature.name, feature.vocabulary
                case Dense():
                    yield f"{feature.name} all zero", feature.name, 0

    def _ordinary(self, count: int, dense_scale: float) -> NDArray[np.void]:
        schema = self.schema
        return records(schema.user, schema.user_dtype, count, dense_scale, self.random)

    def _features(self) -> NDArray[np.void]:
        found = np.zeros(1, request_dtype(self.schema))
        for feature in self.schema.request:
            if isinstance(feature, Numeric):
                number = self.network.request_vector.embedding[feature.name]
                assert isinstance(number, Standardised)
                value = float(number.mean) + float(number.deviation) * self.random.normal()
                found[feature.name] = value
            else:
                found[feature.name] = self.random.integers(1, feature.vocabulary)
        return found


def _missing(feature: Categorical | Numeric) -> float:
    return np.nan if isinstance(feature, Numeric) else 0
