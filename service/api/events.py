"""``POST /v1/events``: appends clicks, one or a batch, visible to the next score."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_store.errors import StoreError, StoreUnavailable, TextCollision
from service.api.body import Contents, read_object, refuse_repeated, strings_in
from service.api.event_models import Event
from service.api.id_kind import COLLISION, Click, IdKind
from service.errors import Fault, InvalidField, StoreFailure
from service.items.item_texts import NamedItem
from service.items.store_client import StoreReader, describe
from service.observability.exposition import Turn
from service.observability.metrics import Metrics

BATCH = "events"
SLICE = 64  # events checked at a time, some 0.3 ms
STORED = 128  # events that one round trip takes to the store


FIELDS = frozenset(Event.model_fields)


class Rejected(BaseModel):
    """An event that is not in the store."""

    index: Annotated[int, Field(description="Which one of the batch.")]
    problem: Annotated[str, Field(description="`invalid-field` or `store-unavailable`.")]
    field: str | None = None
    detail: str


class EventsAnswer(BaseModel):
    """Result of the append: all events but those in `rejected` are in the store."""

    model_config = ConfigDict(extra="forbid")

    request_id: str
    applied: Annotated[int, Field(description="Events taken.")]
    repeated: Annotated[list[int], Field(description="Indexes of those whose key was seen before.")]
    rejected: list[Rejected]


@dataclass(slots=True)
class Outcome:
    """Of a request's events."""

    alone: bool  # not a batch
    applied: int = 0
    repeated: list[int] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)

    def status(self) -> int:
        """200 when all events are in the store, 207 when some are. Raises when none is."""
        taken = self.applied + len(self.repeated)
        if not self.rejected:
            return 200
        if taken:
            return 207
        slugs = {rejected.problem for rejected in self.rejected}
        if slugs == {InvalidField.slug}:
            faults = [Fault(r.field or "body", r.detail) for r in self.rejected[:5]]
            raise InvalidField(f"{faults[0].field}: {faults[0].detail}", faults=faults)
        if slugs == {StoreFailure.slug}:
            details = {rejected.detail for rejected in self.rejected}
            detail = details.pop() if len(details) == 1 else describe(None)
            raise StoreFailure(detail, headers={"Retry-After": "1"})
        return 207

    def json(self, request_id: str) -> bytes:
        answer = EventsAnswer(
            request_id=request_id,
            applied=self.applied,
            repeated=self.repeated,
            rejected=sorted(self.rejected, key=lambda r: r.index),
        )
        return orjson.dumps(answer.model_dump())


class Events:
    """Validates events one by one and appends the valid ones, in slices, so that a large batch does
    not delay other requests."""

    def __init__(self, store: StoreReader, metrics: Metrics, most: int, ids: IdKind) -> None:
        self._store, self._metrics, self.most, self._ids = store, metrics, most, ids
        self._longest = store.store.schema.history_length

    @property
    def contents(self) -> Contents:
        """Bounds of a valid body."""
        names = 1 + 4 * self.most
        strings = 2 * names + self.most * (self._longest + 1)  # names, keys, and ids that are text
        values, lists = self.most * (self._longest + 4), 2 * (1 + self.most)
        return self._ids.contents.of(values, 2 * strings, lists=lists)

    async def take(self, body: bytes, turn: Turn) -> Outcome:
        """Append the valid events; await ``turn`` between slices. Malformed, or InvalidField when
        the batch itself is wrong."""
        found = read_object(body, self.contents)
        outcome = Outcome(alone=BATCH not in found)
        given = [found] if outcome.alone else self._batch(found)
        right, strings = list[tuple[int, Click]](), int(not outcome.alone)
        for start in range(0, len(given), SLICE):
            if start:
                await turn()
            for index, event in enumerate(given[start : start + SLICE], start):
                strings += strings_in(event)
                click = self._checked(index, event, outcome)
                if click is not None:
                    right.append((index, click))
        refuse_repeated(body, strings)
        for start in range(0, len(right), STORED):
            if start:
                await turn()
            await self._append(right[start : start + STORED], outcome)
        for result, count in {
            "applied": outcome.applied,
            "repeated": len(outcome.repeated),
            "rejected": len(outcome.rejected),
        }.items():
            self._metrics.events.labels(result).inc(count)
        return outcome

    async def _append(self, right: Sequence[tuple[int, Click]], outcome: Outcome) -> None:
        """Append in one round trip, after another one for items whose text ids are new to this
        process. Raises StoreFailure unless earlier events are in the store."""
        results: Sequence[bool | StoreError]
        try:
            refused = await self._ids.name([text for _, click in right for text in click.texts])
            if refused:
                right = self._without(refused, right, outcome)
            results = await self._store.append_all([click.append for _, click in right])
        except StoreFailure:
            if not outcome.applied and not outcome.repeated:
                raise
            results = [StoreUnavailable("not asked")] * len(right)
        for (index, _), result in zip(right, results, strict=True):
            self._note(index, result, outcome)

    def _without(
        self, refused: Set[NamedItem], right: Sequence[tuple[int, Click]], outcome: Outcome
    ) -> list[tuple[int, Click]]:
        """Reject the clicks on items whose texts are refused; return the others."""
        kept = []
        for index, click in right:
            if refused.isdisjoint(click.texts):
                kept.append((index, click))
            else:
                self._reject(index, (*_path(index, outcome), click.field), COLLISION, outcome)
        return kept

    def _batch(self, body: dict[str, Any]) -> list[Any]:
        if extra := [name for name in body if name != BATCH]:
            raise InvalidField.of(extra[0], detail="`events` must be the only member")
        events = body[BATCH]
        if not isinstance(events, list) or not 1 <= len(events) <= self.most:
            raise InvalidField.of(BATCH, detail=f"a list of 1 to {self.most} events")
        return events

    def _checked(self, index: int, given: Any, outcome: Outcome) -> Click | None:
        """The click to append; None after it has been rejected."""
        path = _path(index, outcome)
        if isinstance(given, dict) and len(given) > len(FIELDS):  # cheaper than validation
            name = next(name for name in given if name not in FIELDS)
            return self._reject(index, (*path, name), "Extra inputs are not permitted", outcome)
        try:
            event = self._ids.event(given)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            return self._reject(index, (*path, *first["loc"]), first["msg"], outcome)
        if (event.item_id is None) == (event.item_ids is None):
            return self._reject(
                index, (*path, "item_id"), "either `item_id` or `item_ids`, one of them", outcome
            )
        if len(event.clicked) > self._longest:
            detail = f"at most {self._longest} items, which is all a history keeps"
            return self._reject(index, (*path, "item_ids"), detail, outcome)
        return self._ids.click(event)

    @staticmethod
    def _reject(index: int, path: Sequence[str | int], detail: str, outcome: Outcome) -> None:
        fault = Fault.at(path, detail)
        outcome.rejected.append(
            Rejected(index=index, problem=InvalidField.slug, field=fault.field, detail=fault.detail)
        )

    def _note(self, index: int, result: bool | StoreError, outcome: Outcome) -> None:
        if isinstance(result, TextCollision):
            self._reject(index, (*_path(index, outcome), "user_id"), COLLISION, outcome)
        elif isinstance(result, StoreError):
            detail = describe(result)
            outcome.rejected.append(Rejected(index=index, problem=StoreFailure.slug, detail=detail))
        elif result:
            outcome.applied += 1
        else:
            outcome.repeated.append(index)


def _path(index: int, outcome: Outcome) -> tuple[str | int, ...]:
    """Of an event in its body."""
    return () if outcome.alone else (BATCH, index)
