"""JSON Schema of the bodies of events, items and users, with the limits that are checked.

``/v1/score`` has its own from pydantic; these depend on the store's feature schema.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema, Stored
from service.api.event_models import KEY_PATTERN
from service.api.events import BATCH
from service.api.item_text import LANGUAGE, MOST_LANGUAGES, TEXT, VECTORS
from service.api.openapi import problem

Json = dict[str, Any]
TEXTS: Json = {
    "type": "object",
    "additionalProperties": {"type": ["string", "null"]},
    "propertyNames": {"pattern": f"^{LANGUAGE}$"},
    "maxProperties": MOST_LANGUAGES,
    "description": "Texts by language, of which the encoder makes its feature: languages are "
    "averaged. In place of that feature.",
}
GIVEN: Json = {
    "type": "object",
    "additionalProperties": {"type": ["array", "null"], "items": {"type": "number"}},
    "description": "Vectors that the encoder's map takes beside texts, such as an image's.",
}
_CONTENT: Json = {
    "type": "object",
    "properties": {
        "feature": {"type": "string"},
        "digest": {"type": "string", "description": "Of encoder and map."},
        "languages": {"type": "array", "items": {"type": "string"}},
        "tokens": {"type": "integer"},
        "truncated": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Languages whose text is longer than the encoder reads.",
        },
    },
    "required": ["feature", "digest", "languages", "tokens", "truncated"],
}
_WRITTEN: Json = {
    "type": "object",
    "properties": {
        "item_id": {},
        "features": {"type": "object", "description": "As they were written."},
        "content": _CONTENT,
    },
    "required": ["item_id", "features", "content"],
}
WRITTEN: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Written, with a feature made of texts or vectors.",
        "content": {"application/json": {"schema": _WRITTEN}},
    },
    **{status: problem() for status in (409, 504)},
}
INDEX: Json = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
NULL: Json = {"type": "null"}


def item(schema: FeatureSchema, *, whole: bool, has_texts: bool = False) -> Json:
    """An item's features by name: all of them, or those that change.

    ``has_texts``: texts may stand for one of the dense features, the encoder's.
    """
    body = _record(schema.stored_item, whole=whole)
    if not has_texts:
        return body
    body["properties"] |= {TEXT: TEXTS, VECTORS: GIVEN}
    if whole:
        made = {f.name for f in schema.stored_item if isinstance(f, Dense)}
        required = [name for name in body["required"] if name not in made]
        alternatives = [{"required": [TEXT]}, {"required": [VECTORS]}, {"required": [*made]}]
        body |= {"required": required, "anyOf": alternatives}
    return body


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
