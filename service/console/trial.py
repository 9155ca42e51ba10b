"""The page Try it: a user and candidates scored by one or two loaded versions, and why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
from pydantic import ValidationError

from feature_store.errors import StoreError
from feature_store.schema import FeatureSchema
from service.api.id_kind import id_kind
from service.api.inference import infer
from service.context import RequestContext, fresh_id
from service.errors import Fault, InvalidField
from service.models.registry import ModelRegistry
from service.state import ServiceState

MOST_CANDIDATES = 200  # of a page
DEFAULT_RANDOM = 20
EXPLAINED = 5  # history items for each candidate
MOST_HISTORY = 100  # shown
APART = re.compile(r"[\s,;]+")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the form says, as it was typed."""

    user_id: str = ""
    candidates: str = ""
    random: str = str(DEFAULT_RANDOM)
    history: str = ""
    features: str = ""
    version: str = ""
    other: str = ""  # version beside it
    unfolded: str = ""  # "yes" or "no": history and features, as the person left them

    @classmethod
    def of(cls, form: Mapping[str, str]) -> Asked:
        names = cls.__dataclass_fields__
        return cls(**{name: form[name].strip() for name in names if name in form})

    @property
    def is_open(self) -> bool:
        """Whether history and features are shown."""
        return self.unfolded == "yes" or (not self.unfolded and bool(self.history or self.features))


@dataclass(slots=True)
class Score:
    """Of one candidate by one version."""

    score: float | None
    width: float = 0.0  # of its bar, of the largest score's
    because: list[dict[str, Any]] = field(default_factory=list)  # history items: id, share, text


@dataclass(slots=True)
class Row:
    """One candidate."""

    item: str
    text: str | None
    marks: list[str]  # unknown, cold, …
    scores: list[Score]


@dataclass(slots=True)
class Answer:
    """What the page shows."""

    rows: list[Row]
    versions: list[str]
    history: list[dict[str, str | None]]  # newest first
    notes: list[str]
    request: dict[str, Any]  # the body of POST /v1/score
    schema: FeatureSchema  # of the first version


class Trial:
    """Scores for the page; what it asks counts as no traffic of clients."""

    def __init__(self, state: ServiceState) -> None:
        self._state, self._ids = state, id_kind(state)

    @property
    def is_mapped(self) -> bool:
        return self._ids.kind == "mapped"

    async def answer(self, asked: Asked) -> Answer:
        """Score what was asked for. ServiceError, as ``POST /v1/score`` has."""
        body = await self._body(asked)
        found = [await self._scored(body, asked.version or None)]
        if asked.other and asked.other != found[0][1]["model_version"]:
            found.append(await self._scored(body, asked.other))
        texts = await self._texts(found)
        rows = rows_of([answer for _, answer, _ in found], texts)
        _, first, history = found[0]
        shown = [{"item": item, "text": texts.get(item)} for item in history[:MOST_HISTORY]]
        request = {k: v for k, v in body.items() if k not in ("explain", "ids_as_strings")}
        if asked.version:
            request["model_version"] = asked.version
        names = [answer["model_version"] for _, answer, _ in found]
        schema = self._state.registry.resolve(names[0])[0].schema
        return Answer(rows, names, shown, notes_of(first), request, schema)

    async def _body(self, asked: Asked) -> dict[str, Any]:
        body: dict[str, Any] = {"user_id": asked.user_id}
        body["candidates"] = _listed(asked.candidates) or await self._random(asked.random)
        if len(body["candidates"]) > MOST_CANDIDATES:
            raise InvalidField(f"candidates: at most {MOST_CANDIDATES} here")
        if asked.history:
            body["history"] = _listed(asked.history)
        if asked.features:
            body["features"] = _features(asked.features)
        return body | {"explain": EXPLAINED, "ids_as_strings": True}

    async def _random(self, count: str) -> list[str]:
        """Ids of random items in memory."""
        digits = count.isascii() and count.isdigit() and len(count) <= len(str(MOST_CANDIDATES))
        if not digits or not 1 <= int(count) <= MOST_CANDIDATES:
            raise InvalidField(f"random: should be 1 to {MOST_CANDIDATES}")
        active = self._state.ready()
        ids = active.table.ids()
        if not len(ids):
            raise InvalidField("candidates: the store has no items to choose from")
        few = min(int(count), len(ids))
        chosen = np.random.default_rng().choice(ids, few, replace=False).tolist()
        if not self.is_mapped:
            return list(map(str, chosen))
        texts = await self._state.item_texts.of(chosen)
        return [texts[number] for number in chosen if number in texts]

    async def _scored(
        self, body: dict[str, Any], version: str | None
    ) -> tuple[dict[str, int], dict[str, Any], list[str]]:
        """Numbers of the items by id, the answer's JSON, and the ids of the history."""
        state, settings = self._state, self._state.settings
        try:
            asked = self._ids.request.model_validate(self._numbered(body))
        except ValidationError as error:
            first = error.errors()[0]
            fault = Fault.at([str(part) for part in first["loc"]], first["msg"])
            raise InvalidField(f"{fault.field}: {fault.detail}", faults=[fault]) from None
        query = await self._ids.query(asked)
        ctx = RequestContext(fresh_id(), {})
        deadline = ctx.timer.started + settings.deadline_ms / 1e3
        name, result = await infer(state, ctx, query, version, deadline)
        answer = orjson.loads(result.json(name, ctx.request_id, None, query.texts))
        assert query.texts is not None, "ids are asked for as strings"
        await query.texts.read(result.history)
        history = result.history.tolist()
        named = [text if text is not None else "?" for text in query.texts.of(history)]
        numbers = dict(zip(answer["item_ids"], result.candidates.tolist(), strict=True))
        numbers |= dict(zip(map(str, named), history, strict=True))
        return numbers, answer, list(map(str, named))

    def _numbered(self, body: dict[str, Any]) -> dict[str, Any]:
        """Ids as the request has them: numbers, unless they are texts in this store."""
        if self.is_mapped:
            return body
        lists = {
            name: _numbers(name, body[name]) for name in ("candidates", "history") if name in body
        }
        return body | lists | {"user_id": _numbers("user_id", [body["user_id"]])[0]}

    async def _texts(
        self, found: Sequence[tuple[dict[str, int], dict[str, Any], list[str]]]
    ) -> dict[str, str]:
        """Texts that the store keeps of the items, by id; none where it does not answer."""
        numbers: dict[str, int] = {}
        for named, _, _ in found:
            numbers |= named
        try:
            kept = await self._state.store.descriptions(np.array(list(numbers.values()), np.int64))
        except StoreError:
            return {}
        pairs = zip(numbers, kept, strict=True)
        return {item: " · ".join(texts.values()) for item, texts in pairs if texts}


def rows_of(answers: Sequence[Mapping[str, Any]], texts: Mapping[str, str]) -> list[Row]:
    """Put the answers of several versions side by side, best of the first first."""
    scored = [score for answer in answers for score in answer["scores"] if score is not None]
    most = max(scored, default=0.0) or 1.0
    rows = list[Row]()
    for place, item in enumerate(answers[0]["item_ids"]):
        scores = []
        for answer in answers:
            score = answer["scores"][place]
            explained = (answer.get("explanations") or [None] * (place + 1))[place] or {}
            pairs = zip(explained.get("item_ids", []), explained.get("shares", []), strict=True)
            because = [{"item": i, "share": s, "text": texts.get(i)} for i, s in pairs]
            scores.append(Score(score, 100 * (score or 0.0) / most, because))
        rows.append(Row(item, texts.get(item), list(_marks(answers[0], item)), scores))
    return sorted(rows, key=lambda row: -(row.scores[0].score or -1.0))


def _marks(answer: Mapping[str, Any], item: str) -> Sequence[str]:
    lists = {"unknown_items": "unknown", "unreadable_items": "unreadable", "cold_items": "cold"}
    lists["without_content"] = "without content"
    return [mark for name, mark in lists.items() if item in answer.get(name, ())]


def notes_of(answer: Mapping[str, Any]) -> list[str]:
    """What was not ordinary, in words."""
    notes = ["cold user: no history"] if answer["cold_user"] else []
    for name, text in (
        ("degraded", "scored without: {}"),
        ("unknown_history", "history items that the store does not have: {}"),
        ("defaulted", "features at their defaults: {}"),
        ("ignored", "features that this version does not have: {}"),
    ):
        if answer.get(name):
            notes.append(text.format(", ".join(map(str, answer[name]))))
    return notes


def _listed(text: str) -> list[str]:
    """Ids apart by spaces or commas, or a JSON list, for texts that have those."""
    if text.startswith("["):
        try:
            found = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise InvalidField(f"candidates: should be ids or a JSON list ({error})") from None
        return [one if isinstance(one, str) else str(one) for one in found]
    return [part for part in APART.split(text) if part]


def _numbers(name: str, texts: Sequence[str]) -> list[int]:
    """Whole numbers, exactly, however long. InvalidField."""
    for text in texts:
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            shown = "".join(c if c.isprintable() else "�" for c in text[:40])
            raise InvalidField(f"{name}: {shown!r} should be a whole number")
    return [int(text) for text in texts]


def _features(text: str) -> dict[str, Any]:
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidField(f"features: should be a JSON object ({error})") from None
    if not isinstance(found, dict):
        raise InvalidField("features: should be a JSON object")
    return found


def loaded(registry: ModelRegistry) -> list[str]:
    """Names of the versions that can be asked, the active one first."""
    active = registry.active.name if registry.active else None
    return sorted(registry.loaded(), key=lambda name: (name != active, name))
