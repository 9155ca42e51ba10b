"""The user and request features of one request, and the row that the user tower makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from feature_store.contract import UserRows
from model_export.bundle.extremes import magnitude
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.user_tower import Value
from model_export.bundle.vectors import UserRow
from service.errors import InvalidField

TOO_LARGE = "so large that scores overflow"


class UserFeatures:
    """A user's record, and the request's features, checked against the model's."""

    def __init__(
        self, record: UserRows | None, request: Mapping[str, Value], *, is_lost: bool = False
    ) -> None:
        """``record``: (1,), None without one. ``is_lost``: there may be one, which could not be
        read: scored without."""
        self.is_lost = is_lost
        self._record, self._request = record, request
        self._row: UserRow | None = None

    def row(self, model: FoldedModel) -> UserRow:
        """Run the tower, once. On engine threads: tables of users may have to be read from disk."""
        if self._row is None:
            self._row = model.user(self._record, self._request)
            assert self._row is not None, "the model has user or request features"
        return self._row

    def prepare(self, model: FoldedModel) -> None:
        self.row(model)

    @property
    def has_row(self) -> bool:
        return self._row is not None

    def is_extreme(self, model: FoldedModel) -> bool:
        """Whether its numbers are beyond those that surely have finite scores."""
        # NaN is, too.
        return not np.all(magnitude(self.row(model).vector) <= model.extremes.tried_beyond)

    def without_record(self) -> UserFeatures:
        return UserFeatures(None, self._request, is_lost=True)

    def unknown(self) -> UserFeatures:
        """The same without any value."""
        return UserFeatures(None, {}, is_lost=True)

    def refuse_numbers(self) -> None:
        """Raise InvalidField for the largest number of the request, if there are any."""
        numbers = {n: abs(v) for n, v in self._request.items() if isinstance(v, float)}
        if numbers:
            largest = max(numbers, key=lambda name: numbers[name])
            raise InvalidField.of("features", largest, detail=TOO_LARGE)
