"""Validates an item's features as JSON values and writes them into a stored row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from feature_store.contract import ItemRows
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema

_MOST_INDEX = 2**31 - 1


class ItemValueError(ValueError):
    """An invalid feature value. ``place`` is the feature, and the element of its list."""

    def __init__(self, feature: str, reason: str, *element: int) -> None:
        self.feature, self.reason = feature, reason
        self.place: tuple[str | int, ...] = (feature, *element)
        super().__init__(f"{'.'.join(map(str, self.place))}: {reason}")


def item_row(schema: FeatureSchema, values: Mapping[str, Any]) -> ItemRows:
    """Make a (1,) row; every feature of the schema, context included, must have a value."""
    row = np.zeros(1, schema.item_dtype)
    for feature in schema.stored_item:
        if feature.name not in values:
            raise ItemValueError(feature.name, "is missing")
    set_values(schema, row, values)
    return row


def set_values(schema: FeatureSchema, row: ItemRows, values: Mapping[str, Any]) -> None:
    """Write the features named in ``values`` into (1,) ``row``; on an error, none."""
    features = {feature.name: feature for feature in schema.stored_item}
    checked = {}
    for name, value in values.items():
        if name not in features:
            raise ItemValueError(name, f"is no feature (there are: {', '.join(features)})")
        checked[name] = _checked(features[name], value)
    for name, value in checked.items():
        row[name] = value


def _checked(feature: Categorical | CategoricalList | Dense, value: Any) -> Any:
    name = feature.name
    match feature:
        case Categorical():
            return _index(name, value)
        case CategoricalList():
            if not isinstance(value, list) or len(value) > feature.slots:
                raise ItemValueError(name, f"is not a list of at most {feature.slots} integers")
            indices = [_index(name, one, at) for at, one in enumerate(value)]
            return [0] * (feature.slots - len(indices)) + indices
        case Dense():
            if feature.size == 1 and not isinstance(value, list):
                return [_number(feature, value)]
            vector = value
            if not isinstance(vector, list) or len(vector) != feature.size:
                raise ItemValueError(name, f"is not a list of {feature.size} numbers")
            return [_number(feature, one, at) for at, one in enumerate(vector)]


def _index(name: str, value: Any, *element: int) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_INDEX:
        reason = f"{_shown(value)} is not an integer in 0 … {_MOST_INDEX}"
        raise ItemValueError(name, reason, *element)
    return value


def _number(feature: Dense, value: Any, *element: int) -> float:
    if type(value) not in (int, float):
        raise ItemValueError(feature.name, f"{_shown(value)} is not a number", *element)
    if not abs(value) <= feature.most:  # NaN too
        reason = f"{_shown(value)} is not finite within {feature.limit}"
        raise ItemValueError(feature.name, reason, *element)
    return float(value)


def _shown(value: Any) -> str:
    """Format a value, shortened: a hostile one may have thousands of digits or characters."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, (int, float, str)) else type(value).__name__
    return text if len(text) <= 40 else text[:40] + "…"
