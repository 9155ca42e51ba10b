"""An item's features as plain JSON values: checked, and written into a stored row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from feature_store.contract import ItemRows
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema

_MOST_INDEX = 2**31 - 1


class ItemValueError(ValueError):
    """A value that a feature cannot have. ``feature`` names it."""

    def __init__(self, feature: str, reason: str) -> None:
        super().__init__(f"{feature}: {reason}")
        self.feature, self.reason = feature, reason


def item_row(schema: FeatureSchema, values: Mapping[str, Any]) -> ItemRows:
    """(1,) a whole item: every feature of the schema, context included, must have a value."""
    row = np.zeros(1, schema.item_dtype)
    for feature in (*schema.item, *schema.context):
        if feature.name not in values:
            raise ItemValueError(feature.name, "is missing")
    set_values(schema, row, values)
    return row


def set_values(schema: FeatureSchema, row: ItemRows, values: Mapping[str, Any]) -> None:
    """Write the features named in ``values`` into (1,) ``row``, all of them or none."""
    features = {feature.name: feature for feature in (*schema.item, *schema.context)}
    checked = {}
    for name, value in values.items():
        if name not in features:
            raise ItemValueError(name, f"is no feature (there are: {', '.join(features)})")
        checked[name] = _checked(features[name], value, row.dtype[name].base)
    for name, value in checked.items():
        row[name] = value


def _checked(
    feature: Categorical | CategoricalList | Dense, value: Any, dtype: np.dtype[Any]
) -> Any:
    name = feature.name
    match feature:
        case Categorical():
            return _index(name, value)
        case CategoricalList():
            if not isinstance(value, list) or len(value) > feature.slots:
                raise ItemValueError(name, f"is not a list of at most {feature.slots} integers")
            indices = [_index(name, one) for one in value]
            return [0] * (feature.slots - len(indices)) + indices
        case Dense():
            vector = [value] if feature.size == 1 and not isinstance(value, list) else value
            if not isinstance(vector, list) or len(vector) != feature.size:
                raise ItemValueError(name, f"is not a list of {feature.size} numbers")
            return [_number(name, one, dtype) for one in vector]


def _index(name: str, value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_INDEX:
        raise ItemValueError(name, f"{_shown(value)} is not an integer in 0 … {_MOST_INDEX}")
    return value


def _number(name: str, value: Any, dtype: np.dtype[Any]) -> float:
    if type(value) not in (int, float):
        raise ItemValueError(name, f"{_shown(value)} is not a number")
    most = float(np.finfo(dtype).max)
    if not abs(value) <= most:  # NaN too
        raise ItemValueError(name, f"{_shown(value)} is not finite within {dtype}")
    return float(value)


def _shown(value: Any) -> str:
    """The value, but never the thousands of digits or characters of a hostile one."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    text = repr(value) if isinstance(value, (int, float, str)) else type(value).__name__
    return text if len(text) <= 40 else text[:40] + "…"
