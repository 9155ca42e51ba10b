"""Converts features of an item or user between JSON values, which are validated, and a row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from feature_store.contract import ItemRows, Rows, UserRows
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema, Stored

_MOST_INDEX = 2**31 - 1


class FeatureValueError(ValueError):
    """An invalid feature value. ``place`` is the feature, and the element of its list."""

    def __init__(self, feature: str, reason: str, *element: int) -> None:
        self.feature, self.reason = feature, reason
        self.place: tuple[str | int, ...] = (feature, *element)
        super().__init__(f"{'.'.join(map(str, self.place))}: {reason}")


def item_row(schema: FeatureSchema, values: Mapping[str, Any]) -> ItemRows:
    """Make a (1,) row; every feature of the schema, context included, must have a value."""
    return _row(schema.stored_item, schema.item_dtype, values)


def user_row(schema: FeatureSchema, values: Mapping[str, Any]) -> UserRows:
    """Make a (1,) row; every user feature of the schema must have a value."""
    return _row(schema.user, schema.user_dtype, values)


def _row(features: Sequence[Stored], dtype: np.dtype[np.void], values: Mapping[str, Any]) -> Rows:
    row = np.zeros(1, dtype)
    for feature in features:
        if feature.name not in values:
            raise FeatureValueError(feature.name, "is missing")
    set_values(features, row, values)
    return row


def set_values(features: Sequence[Stored], row: Rows, values: Mapping[str, Any]) -> None:
    """Write the features named in ``values`` into (1,) ``row``; on an error, none."""
    named = {feature.name: feature for feature in features}
    checked = {}
    for name, value in values.items():
        if name not in named:
            raise FeatureValueError(name, f"is no feature (there are: {', '.join(named)})")
        checked[name] = _checked(named[name], value)
    for name, value in checked.items():
        row[name] = value


def values_of(features: Sequence[Stored], row: Rows) -> dict[str, Any]:
    """(1,) row as JSON values by feature; a list without its padding."""
    values: dict[str, Any] = {}
    for feature in features:
        value = row[feature.name][0]
        if isinstance(feature, CategoricalList):
            value = value[value != 0]
        values[feature.name] = value.tolist()
    return values


def _checked(feature: Categorical | CategoricalList | Dense, value: Any) -> Any:
    name = feature.name
    match feature:
        case Categorical():
            return _index(name, value)
        case CategoricalList():
            if not isinstance(value, list) or len(value) > feature.slots:
                raise FeatureValueError(name, f"is not a list of at most {feature.slots} integers")
            indices = [_index(name, one, at) for at, one in enumerate(value)]
            return [0] * (feature.slots - len(indices)) + indices
        case Dense():
            most = feature.most
            if feature.size == 1 and not isinstance(value, list):
                return [_number(feature, most, value)]
            vector = value
            if not isinstance(vector, list) or len(vector) != feature.size:
                raise FeatureValueError(name, f"is not a list of {feature.size} numbers")
            return [_number(feature, most, one, at) for at, one in enumerate(vector)]


def _index(name: str, value: Any, *element: int) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_INDEX:
        reason = f"{_shown(value)} is not an integer in 0 … {_MOST_INDEX}"
        raise FeatureValueError(name, reason, *element)
    return value


def _number(feature: Dense, most: float, value: Any, *element: int) -> float:
    if type(value) not in (int, float):
        raise FeatureValueError(feature.name, f"{_shown(value)} is not a number", *element)
    if not abs(value) <= most:  # NaN too
        reason = f"{_shown(value)} is not finite within {feature.limit}"
        raise FeatureValueError(feature.name, reason, *element)
    return float(value)


def _shown(value: Any) -> str:
    """Format a value as JSON has it, shortened: a hostile one may have thousands of digits."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 40 else text[:40] + "…"
