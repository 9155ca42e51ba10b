"""Schema of an event of ``POST /v1/events``, with examples."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError

from service.api.ids import Id, MappedId, NumberOrText, has_text

KEY_PATTERN = "^[!-~]{1,128}$"


class Event(BaseModel):
    """Clicks of one user."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    user_id: Annotated[Id, Field(description="Who clicked.")]
    item_id: Annotated[Id | None, Field(description="What was clicked.")] = None
    item_ids: Annotated[
        list[Id] | None,
        FailFast(),
        Field(
            min_length=1,
            description="Instead of `item_id`: several, oldest first, taken whole or not at all.",
        ),
    ] = None
    key: Annotated[
        str | None,
        Field(
            pattern=KEY_PATTERN,
            description="Idempotency key, of this user alone: an event whose key was seen is not "
            "taken again.",
        ),
    ] = None

    @property
    def clicked(self) -> list[int]:
        return [self.item_id] if self.item_id is not None else list(self.item_ids or ())


class EventWithText(Event):
    """``Event`` with ids as numbers or text; slower to check."""

    user_id: NumberOrText
    item_id: NumberOrText | None = None
    item_ids: Annotated[list[NumberOrText] | None, FailFast(), Field(min_length=1)] = None


class MappedEvent(Event):
    """``Event`` of a mapped store, whose ids are texts."""

    user_id: MappedId  # type: ignore[assignment]
    item_id: MappedId | None = None  # type: ignore[assignment]
    item_ids: Annotated[list[MappedId] | None, FailFast(), Field(min_length=1)] = None  # type: ignore[assignment]


def event_of(given: Any) -> Event:
    """Validate an event, whose ids may be strings. ValidationError."""
    try:
        return Event.model_validate(given)
    except ValidationError as error:
        if not has_text(error):
            raise
    return EventWithText.model_validate(given)


EVENT_EXAMPLES: dict[str, Any] = {
    "a click": {"value": {"user_id": 7, "item_id": 17}},
    "several, oldest first, safe to send again": {
        "value": {"user_id": 7, "item_ids": [17, 4], "key": "session-81-3"}
    },
    "a batch": {"value": {"events": [{"user_id": 7, "item_id": 17}, {"user_id": 8, "item_id": 4}]}},
}
MAPPED_EVENT_EXAMPLES: dict[str, Any] = {
    "a click": {"value": {"user_id": "u-7", "item_id": "sku:17"}},
    "several, oldest first, safe to send again": {
        "value": {"user_id": "u-7", "item_ids": ["sku:17", "sku:4"], "key": "session-81-3"}
    },
    "a batch": {
        "value": {
            "events": [
                {"user_id": "u-7", "item_id": "sku:17"},
                {"user_id": "u-8", "item_id": "sku:4"},
            ]
        }
    },
}
