"""Schemas of ``POST /v1/score``: request, answer and problem document, with examples."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, WithJsonSchema, create_model

from feature_store.contract import MAX_ID
from feature_store.schema import MAX_HISTORY
from service.api.ids import INT64, AnsweredId, Id, MappedId, NumberOrText

Index = Annotated[int, Field(ge=0, le=2**31 - 1)]
# Checked against the model's features, of which this module knows nothing. Of "number" alone
# generators make a float, and an index is none.
VALUES = [
    {"type": "integer", "minimum": 0, "maximum": 2**31 - 1},
    {"type": "number"},
    {"type": "null"},
]
Value = Annotated[Any, WithJsonSchema({"anyOf": VALUES})]
MOST_CONTEXT_FEATURES = MOST_REQUEST_FEATURES = 64
MOST_EXPLAINED = 100
CANDIDATES = "Item ids to score; a duplicate is answered at each of its positions."


class ScoreRequest(BaseModel):
    """A user and the candidates to score."""

    # Strict: 1.0 and true are not the integer 1, and "1" is where ``NumberOrText`` says so.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    ids_are_texts: ClassVar[bool] = False

    user_id: Annotated[Id, Field(description="Whose history to read.")]
    candidates: Annotated[list[Id], FailFast(), Field(min_length=1, description=CANDIDATES)]
    context: Annotated[
        dict[str, Annotated[list[Index], FailFast()]],
        Field(
            max_length=MOST_CONTEXT_FEATURES,
            description="Context feature -> one value per candidate, instead of the stored one.",
        ),
    ] = {}
    features: Annotated[
        dict[str, Value],
        Field(
            max_length=MOST_REQUEST_FEATURES,
            description="Request feature -> an index, or a number. A missing one or null is the "
            "model's default. One that only another loaded version has is left out: `ignored`.",
        ),
    ] = {}
    history: Annotated[
        list[Id] | None,
        FailFast(),
        Field(
            max_length=MAX_HISTORY,
            description="Item ids, oldest first, instead of the stored history.",
        ),
    ] = None
    top_k: Annotated[
        Annotated[int, Field(ge=1, le=MAX_ID, json_schema_extra=INT64)] | None,
        Field(description="Answer only the k best, best first."),
    ] = None
    explain: Annotated[
        int | None,
        Field(
            ge=1,
            le=MOST_EXPLAINED,
            description="So many history items per candidate that its interest came from.",
        ),
    ] = None
    ids_as_strings: Annotated[
        bool, Field(description="Give the ids of the answer as strings: JavaScript.")
    ] = False
    model_version: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=64,
            description="Answer with this version (or the alias `active`) or not at all.",
        ),
    ] = None


class ScoreRequestOfTexts(ScoreRequest):
    """The request where ids are texts; ``mapped_score_request`` types its ids."""

    ids_are_texts: ClassVar[bool] = True


def score_request(max_candidates: int) -> type[ScoreRequest]:
    """The request with this service's own limit, so that validation and OpenAPI agree on it."""
    return _with_ids(Id, max_candidates)


def score_request_with_text(max_candidates: int) -> type[ScoreRequest]:
    """``score_request`` with ids as numbers or text, which OpenAPI describes; slower to check."""
    return _with_ids(NumberOrText, max_candidates)


def mapped_score_request(max_candidates: int) -> type[ScoreRequest]:
    """``score_request`` of a mapped store: its ids are ``str``."""
    return _with_ids(MappedId, max_candidates, ScoreRequestOfTexts)


def _with_ids(
    kind: Any, max_candidates: int, base: type[ScoreRequest] = ScoreRequest
) -> type[ScoreRequest]:
    fields = ScoreRequest.model_fields
    user, history = fields["user_id"].description, fields["history"].description
    limits = Field(min_length=1, max_length=max_candidates, description=CANDIDATES)
    longest = Field(max_length=MAX_HISTORY, description=history)
    typed: dict[str, Any] = {
        "user_id": (Annotated[kind, Field(description=user)], ...),
        "candidates": (Annotated[list[kind], FailFast(), limits], ...),
        "history": (Annotated[list[kind] | None, FailFast(), longest], None),
    }
    return create_model("ScoreRequest", __base__=base, **typed)


class Explanation(BaseModel):
    """The history items a candidate's interest came from, the strongest first."""

    model_config = ConfigDict(extra="forbid")

    item_ids: list[AnsweredId]
    shares: Annotated[
        list[float], Field(description="Of the pooled history; all of them sum to 1 at most.")
    ]


class ScoreAnswer(BaseModel):
    """Scores and what was unusual about the items, in parallel arrays."""

    model_config = ConfigDict(extra="forbid")

    model_version: str
    request_id: str
    item_ids: list[AnsweredId]
    scores: Annotated[
        list[float | None],
        Field(description="Parallel to `item_ids`; null where the item has no readable record."),
    ]
    cold_user: Annotated[
        bool, Field(description="No history was found or given: scored with an empty one.")
    ]
    unknown_items: Annotated[list[AnsweredId], Field(description="Not in the store: score null.")]
    unreadable_items: Annotated[
        list[AnsweredId],
        Field(description="Damaged in the store: score null, or left out of the history."),
    ]
    cold_items: Annotated[
        list[AnsweredId],
        Field(description="Newer than the model: scored from content with a zero id vector."),
    ]
    without_content: Annotated[
        list[AnsweredId] | None,
        Field(
            description="Without a vector of the encoder that the model was trained with: scored "
            "without one. Of models that name their encoder alone."
        ),
    ] = None
    unknown_history: Annotated[
        list[AnsweredId],
        Field(description="History items that are not in the store, left out; newest first."),
    ]
    degraded: Annotated[
        list[str],
        Field(description="What the answer had to do without: `items`, `history`, `user`."),
    ]
    defaulted: Annotated[
        list[str] | None,
        Field(
            description="User and request features without a known value, which count as missing. "
            "Of models with such features alone."
        ),
    ] = None
    ignored: Annotated[
        list[str] | None,
        Field(
            description="Request features that this version does not have, left out. "
            "Absent if there are none."
        ),
    ] = None
    explanations: Annotated[
        list[Explanation | None] | None,
        Field(description="With `explain`: parallel to `item_ids`; null where the score is."),
    ] = None


def mapped_score_answer() -> type[ScoreAnswer]:
    """``ScoreAnswer`` of a mapped store, whose ids are texts."""
    explanation = create_model("Explanation", __base__=Explanation, item_ids=(list[MappedId], ...))
    typed: dict[str, Any] = {
        name: (Annotated[list[MappedId], Field(description=field.description)], ...)
        for name, field in ScoreAnswer.model_fields.items()
        if field.annotation == list[AnsweredId]
    }
    why = Field(description=ScoreAnswer.model_fields["explanations"].description)
    typed["explanations"] = (Annotated[list[explanation | None] | None, why], None)  # type: ignore[valid-type]
    return create_model("ScoreAnswer", __base__=ScoreAnswer, **typed)


class ProblemDocument(BaseModel):
    """RFC 9457, as `application/problem+json`."""

    model_config = ConfigDict(extra="forbid")

    type: Annotated[str, Field(examples=["urn:qin:problem:invalid-field"])]
    title: str
    status: int
    detail: str
    request_id: str
    field: Annotated[str | None, Field(description="The first field at fault.")] = None
    errors: Annotated[
        list[dict[str, str]] | None, Field(description="`field` and `detail` of the first faults.")
    ] = None
    loaded: Annotated[list[str] | None, Field(description="Versions there are instead.")] = None
    waiting_for: Annotated[str | None, Field(description="What /readyz waits for.")] = None
    limit_bytes: Annotated[int | None, Field(description="The largest body taken.")] = None


REQUEST_EXAMPLES: dict[str, Any] = {
    "stored history": {"value": {"user_id": 7, "candidates": [17, 4, 99]}},
    "the best three": {"value": {"user_id": 7, "candidates": [17, 4, 99, 23], "top_k": 3}},
    "the best two, and why": {
        "value": {"user_id": 7, "candidates": [17, 4, 99], "top_k": 2, "explain": 3}
    },
    "ids beyond 2^53 from JavaScript": {
        "value": {"user_id": "7", "candidates": ["17", "4"], "ids_as_strings": True}
    },
    "own history and context": {
        "value": {
            "user_id": 7,
            "candidates": [17, 4],
            "history": [5, 9, 12],
            "context": {"likes_level": [3, 4]},
        }
    },
}
MAPPED_EXAMPLES: dict[str, Any] = {
    "stored history": {"value": {"user_id": "u-7", "candidates": ["sku:17", "sku:4"]}},
    "the best two, and why": {
        "value": {
            "user_id": "6f9619ff-8b86-d011-b42d-00c04fc964ff",
            "candidates": ["sku:17", "sku:4", "sku:99"],
            "top_k": 2,
            "explain": 3,
        }
    },
    "own history": {
        "value": {"user_id": "u-7", "candidates": ["sku:17"], "history": ["sku:5", "sku:9"]}
    },
}
ANSWER_EXAMPLE: dict[str, Any] = {
    "model_version": "20261121T093000Z",
    "request_id": "5f0c2b7e9d4a4c53a8f1d0e6b7a3c291",
    "item_ids": [17, 4, 99],
    "scores": [0.0312, 0.2711, None],
    "cold_user": False,
    "unknown_items": [99],
    "unreadable_items": [],
    "cold_items": [],
    "unknown_history": [],
    "degraded": [],
}
MAPPED_ANSWER_EXAMPLE = {
    **ANSWER_EXAMPLE,
    "item_ids": ["sku:17", "sku:4", "sku:99"],
    "unknown_items": ["sku:99"],
}


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": schema}


def deadline_header(most_ms: float) -> dict[str, Any]:
    """With this service's own limit."""
    limits = {"exclusiveMinimum": 0, "maximum": most_ms}
    return _header("X-Deadline-Ms", "504 past it.", type="number", **limits)


REQUEST_HEADERS = [
    _header(
        "X-Request-Id",
        "Echoed if it is 1 to 128 of the characters `!` to `~`; made otherwise.",
        type="string",
    ),
    _header(
        "X-Priority",
        "Class of the request. Under load `batch` waits for `online`, and is refused first.",
        type="string",
        enum=["online", "batch"],
        default="online",
    ),
    _header("X-Server-Timing", "1 asks for the Server-Timing header.", type="string"),
]
ANSWER_HEADERS = {
    "X-Request-Id": {"schema": {"type": "string"}},
    "X-Model-Version": {"schema": {"type": "string"}},
    "Server-Timing": {
        "schema": {"type": "string"},
        "description": "Milliseconds by stage, which sum to the total; on request.",
    },
}
