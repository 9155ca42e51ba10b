"""JSON Schema of the bodies of events, items and users, with the limits that are checked.

``/v1/score`` has its own from pydantic; these depend on the store's feature schema.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from feature_store.schema import Categorical, CategoricalList, FeatureSchema, Stored
from service.api.event_models import KEY_PATTERN
from service.api.events import BATCH

Json = dict[str, Any]
INDEX: Json = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
NULL: Json = {"type": "null"}


def item(schema: FeatureSchema, *, whole: bool) -> Json:
    """An item's features by name: all of them, or those that change."""
    return _record(schema.stored_item, whole=whole)


def user(schema: FeatureSchema, *, whole: bool) -> Json:
    """The same of a user."""
    return _record(schema.user, whole=whole)


def _record(features: Iterable[Stored], *, whole: bool) -> Json:
    properties = {f.name: _feature(f) for f in features}
    members = {"required": list(properties)} if whole else {"minProperties": 1}
    return {"type": "object", "properties": properties, "additionalProperties": False, **members}


def events(schema: FeatureSchema, most: int, id_schema: Json) -> Json:
    """One event or a batch; ``item_id`` or ``item_ids``, and the other absent or null."""
    several = {
        "type": "array",
        "items": id_schema,
        "minItems": 1,
        "maxItems": schema.history_length,
        "description": "Several, oldest first, taken whole or not at all.",
    }
    clicked = {**id_schema, "description": "What was clicked."}
    kinds = [
        _event("item_id", id_schema, {"item_id": clicked, "item_ids": NULL}),
        _event("item_ids", id_schema, {"item_id": NULL, "item_ids": several}),
    ]
    many = {"type": "array", "items": {"oneOf": kinds}, "minItems": 1, "maxItems": most}
    batch = {
        "type": "object",
        "properties": {BATCH: many},
        "required": [BATCH],
        "additionalProperties": False,
    }
    return {"oneOf": [*kinds, batch]}


def _event(required: str, id_schema: Json, clicks: Json) -> Json:
    key = {
        "anyOf": [{"type": "string", "pattern": KEY_PATTERN}, NULL],
        "description": "Idempotency key, of this user alone: an event whose key was seen is not "
        "taken again.",
    }
    return {
        "type": "object",
        "properties": {
            "user_id": {**id_schema, "description": "Who clicked."},
            **clicks,
            "key": key,
        },
        "required": ["user_id", required],
        "additionalProperties": False,
    }


def _feature(feature: Any) -> Json:
    match feature:
        case CategoricalList():
            return {"type": "array", "items": INDEX, "maxItems": feature.slots}
        case Categorical():
            return INDEX
    number = {"type": "number", "minimum": -feature.most, "maximum": feature.most}
    vector = {"type": "array", "items": number, "minItems": feature.size, "maxItems": feature.size}
    return {"anyOf": [vector, number]} if feature.size == 1 else vector
