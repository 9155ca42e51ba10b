"""The kind of a store's ids, decided once at start: from a request's ids to the store's numbers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence, Set
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import unquote_to_bytes

import numpy as np
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request

from feature_store.contract import MAX_ID, Append, Ids
from feature_store.text_ids import LONGEST, TextIds
from service.api import ids
from service.api.body import Contents, TextContents
from service.api.event_models import (
    EVENT_EXAMPLES,
    MAPPED_EVENT_EXAMPLES,
    Event,
    MappedEvent,
    event_of,
)
from service.api.score_models import (
    ANSWER_EXAMPLE,
    MAPPED_ANSWER_EXAMPLE,
    MAPPED_EXAMPLES,
    REQUEST_EXAMPLES,
    ScoreAnswer,
    ScoreRequest,
    mapped_score_answer,
    mapped_score_request,
    score_request,
    score_request_with_text,
)
from service.errors import InvalidField
from service.items.item_texts import ItemTexts, NamedItem
from service.scoring.id_texts import DecimalTexts, IdTexts, StoredTexts
from service.scoring.query import ScoreQuery
from service.state import ServiceState

DECIMAL = DecimalTexts()
ANY_TEXT = "text"  # path convertor
SLICE = 1024  # texts numbered at a time: under a millisecond
ITEMS, USERS = "/v1/items/", "/v1/users/"
COLLISION = "its number in this store is another id's: it cannot be stored here"


class _AnyText(StringConvertor):
    """Matches the rest of a path, slashes and line breaks included."""

    regex = r"[\s\S]*"


register_url_convertor(ANY_TEXT, _AnyText())


class Item(NamedTuple):
    """The item or the user in a path."""

    number: int
    given: int | str


class Click(NamedTuple):
    """An event to append, and its items' texts, if ids are texts."""

    append: Append
    texts: Sequence[NamedItem] = ()
    field: str = "item_id"  # that has the items


class NumericIds:
    """Ids that are numbers, which requests may give in decimal strings."""

    kind: Literal["numeric", "mapped"] = "numeric"
    contents: type[Contents] = Contents
    answer: type[ScoreAnswer] = ScoreAnswer
    request_examples, answer_example = REQUEST_EXAMPLES, ANSWER_EXAMPLE
    event_examples = EVENT_EXAMPLES
    in_body, in_path = ids.EITHER, ids.NUMBER  # JSON Schema
    item_path, user_path = f"{ITEMS}{{item_id}}", f"{USERS}{{user_id}}"

    def __init__(self, max_candidates: int) -> None:
        self._most = max_candidates

    @cached_property
    def request(self) -> type[ScoreRequest]:
        return score_request(self._most)

    @cached_property
    def request_with_text(self) -> type[ScoreRequest] | None:
        return score_request_with_text(self._most)

    async def query(self, asked: ScoreRequest) -> ScoreQuery:
        history = None if asked.history is None else np.array(asked.history[::-1], np.int64)
        candidates = np.array(asked.candidates, np.int64)
        texts = DECIMAL if asked.ids_as_strings else None
        return _query(asked, asked.user_id, candidates, history, texts)

    def event(self, given: Any) -> Event:
        """ValidationError."""
        return event_of(given)

    def click(self, event: Event) -> Click:
        return Click(Append(event.user_id, event.clicked, event.key))

    def item(self, request: Request) -> Item:
        """Parse the id in the path. InvalidField."""
        return self._parsed(request, "item_id")

    def user(self, request: Request) -> Item:
        """Parse the id in the path. InvalidField."""
        return self._parsed(request, "user_id")

    @staticmethod
    def _parsed(request: Request, name: str) -> Item:
        text: str = request.path_params[name]
        if not (ids.is_decimal(text) and int(text) <= MAX_ID):
            raise InvalidField.of(name, detail=f"an integer in 0 … {MAX_ID}")
        return Item(int(text), int(text))

    async def name(self, items: Iterable[NamedItem]) -> Set[NamedItem]:
        """Keep the texts of items, before they are put or clicked on; numbers have none. Returns
        those that are refused."""
        return frozenset()


class MappedIds:
    """Ids that are texts, which the store numbers."""

    kind: Literal["numeric", "mapped"] = "mapped"
    contents: type[Contents] = TextContents
    request_with_text: type[ScoreRequest] | None = None
    request_examples, answer_example = MAPPED_EXAMPLES, MAPPED_ANSWER_EXAMPLE
    event_examples = MAPPED_EVENT_EXAMPLES
    in_body = in_path = ids.MAPPED
    item_path = f"{ITEMS}{{item_id:{ANY_TEXT}}}"
    user_path = f"{USERS}{{user_id:{ANY_TEXT}}}"

    def __init__(
        self,
        max_candidates: int,
        text_ids: TextIds,
        texts: ItemTexts,
        turn: Callable[[], Awaitable[None]],
    ) -> None:
        """``turn`` is awaited between slices of long lists."""
        self._most, self._text_ids, self._texts, self._turn = max_candidates, text_ids, texts, turn

    @cached_property
    def request(self) -> type[ScoreRequest]:
        return mapped_score_request(self._most)

    @cached_property
    def answer(self) -> type[ScoreAnswer]:
        return mapped_score_answer()

    async def query(self, asked: ScoreRequest) -> ScoreQuery:
        user, items = cast(str, asked.user_id), cast(list[str], asked.candidates)
        candidates, past = await self.numbers(items), None
        given = dict(zip(candidates.tolist(), items, strict=True))
        if asked.history is not None:
            history = cast(list[str], asked.history)
            past = (await self.numbers(history))[::-1]
            given |= zip(past.tolist(), history[::-1], strict=True)
        texts = StoredTexts(items, given, self._texts)
        return _query(asked, self._text_ids.number(user), candidates, past, texts, user)

    def event(self, given: Any) -> Event:
        """ValidationError."""
        return MappedEvent.model_validate(given)

    def click(self, event: Event) -> Click:
        user, texts = cast(str, event.user_id), cast(list[str], event.clicked)
        items = self._text_ids.numbers(texts).tolist()
        append = Append(self._text_ids.number(user), items, event.key, user)
        field = "item_ids" if event.item_id is None else "item_id"
        return Click(append, list(zip(items, texts, strict=True)), field)

    def item(self, request: Request) -> Item:
        """Parse the id in the path, which may hold any character, percent-encoded. InvalidField."""
        return self._parsed(request, ITEMS, "item_id")

    def user(self, request: Request) -> Item:
        """As ``item``, of a user."""
        return self._parsed(request, USERS, "user_id")

    def _parsed(self, request: Request, prefix: str, name: str) -> Item:
        path = unquote_to_bytes(request.scope["raw_path"])
        try:
            text = path.removeprefix(prefix.encode()).decode()
        except UnicodeDecodeError:
            raise InvalidField.of(name, detail="not UTF-8 once percent-decoded") from None
        if not 1 <= len(text) <= LONGEST:
            raise InvalidField.of(name, detail=ids.NO_TEXT)
        return Item(self._text_ids.number(text), text)

    async def name(self, items: Iterable[NamedItem]) -> Set[NamedItem]:
        """Keep the texts of items, before they are put or clicked on. Returns those refused."""
        return await self._texts.name(items)

    def number(self, text: str) -> int:
        return self._text_ids.number(text)

    async def numbers(self, texts: Sequence[str]) -> Ids:
        """(N,) numbers of N texts."""
        if len(texts) <= SLICE:
            return self._text_ids.numbers(texts)
        parts = []
        for start in range(0, len(texts), SLICE):
            await self._turn()
            parts.append(self._text_ids.numbers(texts[start : start + SLICE]))
        return np.concatenate(parts)


IdKind = NumericIds | MappedIds


def id_kind(state: ServiceState) -> IdKind:
    """Return the kind of the ids of the service's store."""
    most, text_ids = state.settings.max_candidates, state.store.text_ids
    if text_ids is None:
        return NumericIds(most)
    return MappedIds(most, text_ids, state.item_texts, state.budget.one_at_a_time)


def _query(
    asked: ScoreRequest,
    user_id: int,
    candidates: Ids,
    history: Ids | None,
    texts: IdTexts | None,
    user_text: str | None = None,
) -> ScoreQuery:
    context: dict[str, Any] = {name: np.array(v, np.int32) for name, v in asked.context.items()}
    explain, features = asked.explain, asked.features
    return ScoreQuery(
        user_id, candidates, history, context, asked.top_k, explain, texts, user_text, features
    )
