"""Schemas of the candidates that ``POST /v1/score`` takes inline, beside ids."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from feature_store.schema import FeatureSchema
from feature_store.text_ids import LONGEST
from service.api import item_schema

MOST_INLINE = 64  # of a request
MOST_LANGUAGES = 16  # of an item
LANGUAGE = r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$"  # BCP 47
Language = Annotated[str, Field(pattern=LANGUAGE)]


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
    text: Annotated[
        dict[Language, Annotated[str, Field(min_length=1)]],
        Field(
            max_length=MOST_LANGUAGES,
            description="Language -> text. The encoder makes the content feature of it.",
        ),
    ] = {}
    features: Annotated[
        dict[str, Any],
        Field(
            description="As for PUT /v1/items: every feature, but the one that `text` makes, and "
            "the identity, which is 0 if it is left out.",
        ),
    ] = {}


def with_inline(request: dict[str, Any], schema: FeatureSchema) -> dict[str, Any]:
    """Document inline candidates in the JSON Schema of a request."""
    inline = InlineCandidate.model_json_schema()
    inline["properties"]["features"] |= item_schema.item(schema, whole=False) | {"minProperties": 0}
    candidates = request["properties"]["candidates"]
    either = {**candidates, "items": {"anyOf": [candidates["items"], inline]}}
    return {**request, "properties": {**request["properties"], "candidates": either}}
