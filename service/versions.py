"""Loaded model versions. A request takes one at its start and uses no other to its end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import ItemRows
from feature_store.schema import FeatureSchema
from model_export.runtime import FoldedModel
from service.errors import NotReady, UnknownVersion
from service.item_table import DerivedItems, ItemTable

ACTIVE = "active"  # the alias of whichever version answers by default


@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """One model and the items made ready for it."""

    model: FoldedModel
    table: ItemTable

    @property
    def name(self) -> str:
        return self.model.version

    @property
    def schema(self) -> FeatureSchema:
        return self.model.schema


def derive(model: FoldedModel, rows: ItemRows) -> tuple[DerivedItems, NDArray[np.bool_]]:
    """Item records (N,) through the item tower; and which of them came out finite.

    A record whose numbers are not finite would make every score it touches NaN.
    """
    towers = model.items(rows)
    context = np.zeros((len(rows), len(model.schema.context)), np.int32)
    for column, feature in enumerate(model.schema.context):
        context[:, column] = rows[feature.name]
    items = DerivedItems(towers.vector, towers.row, context, model.cold(rows))
    finite = np.ones(len(rows), np.bool_)
    for part in (towers.vector, towers.row):
        finite &= np.isfinite(part).all(axis=1)
    return items, finite


class Versions:
    """Which versions can answer, and by what names."""

    def __init__(self) -> None:
        self._active: Version | None = None

    @property
    def active(self) -> Version | None:
        return self._active

    def activate(self, version: Version) -> None:
        """One reference changes; requests under way keep the one they took."""
        self._active = version

    def loaded(self) -> list[str]:
        return [self._active.name] if self._active else []

    def resolve(self, asked: str | None) -> Version:
        """The version to answer with. UnknownVersion lists what there is instead."""
        if self._active is None:
            raise NotReady("the model is still being loaded", headers={"Retry-After": "1"})
        if asked in (None, ACTIVE, self._active.name):
            return self._active
        raise UnknownVersion(
            f"model_version: {asked!r} is not loaded; loaded: {', '.join(self.loaded())}",
            members={"loaded": self.loaded(), "field": "model_version"},
        )
