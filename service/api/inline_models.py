"""Schemas of the candidates that ``POST /v1/score`` takes inline, beside ids."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from feature_store.schema import FeatureSchema
from feature_store.text_ids import LONGEST
from service.api import item_schema

MOST_INLINE = 64  # of a request


class InlineCandidate(BaseModel):
    """An item that is in no store."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=LONGEST,
            description="Its name in the answer, that of no other candidate; `candidates.PLACE` "
            "without one.",
        ),
    ] = None
    # As in writes of items; ``item_text`` checks them.
    text: Annotated[Any, WithJsonSchema(item_schema.TEXTS)] = None
    vectors: Annotated[Any, WithJsonSchema(item_schema.GIVEN)] = None
    features: Annotated[
        dict[str, Any],
        Field(
            description="As for PUT /v1/items: every feature, but that of `text` and `vectors`, "
            "and the identity, which is 0 if it is left out.",
        ),
    ] = {}


def with_inline(
    request: dict[str, Any], schema: FeatureSchema, *, has_texts: bool
) -> dict[str, Any]:
    """Document inline candidates in the JSON Schema of a request. ``has_texts``: there is an
    encoder, which makes one of the features, so that not all are required."""
    inline = InlineCandidate.model_json_schema()
    properties = inline["properties"]
    described = properties["features"]["description"]
    features = item_schema.item(schema, whole=True)
    required = [name for name in features["required"] if name != schema.identity]
    if has_texts:
        del features["required"]
    else:
        del properties["text"], properties["vectors"]
        inline["required"] = ["features"]
        features["required"] = required
    properties["features"] = {**features, "description": described}
    candidates = request["properties"]["candidates"]
    either = {**candidates, "items": {"anyOf": [candidates["items"], inline]}}
    return {**request, "properties": {**request["properties"], "candidates": either}}
