"""Finds the item feature that an encoder's contents are for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from feature_store.schema import Dense, Stored

if TYPE_CHECKING:
    from text.runtime.content import ContentMap  # takes an extra


def content_feature(content: ContentMap, features: Iterable[Stored]) -> Dense | None:
    """Return the feature that a map is for, if items have it in the map's size."""
    about = content.about
    for feature in features:
        if isinstance(feature, Dense) and (feature.name, feature.size) == (
            about.feature,
            about.size,
        ):
            return feature
    return None
