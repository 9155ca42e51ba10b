"""Routes of events, items and users.

``QIN_EVENTS_ON`` and ``QIN_WRITES_ON`` choose the port of each. The public port refuses what is at
the admin port or off, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from fastapi import FastAPI, Request, Response

from service.access.admin import Access, audited
from service.api import item_schema, users
from service.api.body import Contents, parse_object, read_body
from service.api.events import Events, EventsAnswer
from service.api.id_kind import IdKind, Item, id_kind
from service.api.item_text import ItemTexts
from service.api.items import CatalogueItems, Values, example_of
from service.api.openapi import problem
from service.api.users import UserRecords
from service.context import RequestContext, context_of
from service.errors import Forbidden, UnsupportedMediaType
from service.observability.exposition import Turn, at_once
from service.settings import PREFIX, Place
from service.state import ServiceState

EVENTS = "/v1/events"
JSON = "application/json"
# Time of other threads, with the embedded store: to store a click; to store and derive an item.
EVENT_S, ITEM_S = 10e-6, 0.3e-3
Responses = dict[int | str, dict[str, Any]]
REFUSALS: Responses = {status: problem() for status in (400, 413, 415, 422, 429, 500, 503)}
UNKNOWN: Responses = {404: problem()}
ADMIN: Responses = {401: problem(), 403: problem()}
# Context manager around a write, given its action; members put into the dict are logged.
Record = Callable[[Request, str], AbstractContextManager[dict[str, object]]]


def add_writes(app: FastAPI, state: ServiceState, admin: Access | None = None) -> None:
    """Add the write routes of this port: the admin port's with ``admin``, else the public one's.

    At the admin port access is checked before the body is read, and each write is logged.
    """
    here = "service" if admin is None else "admin"
    record = _unrecorded if admin is None else _recorded_by(admin)
    more = {} if admin is None else ADMIN
    settings, ids = state.settings, id_kind(state)
    if settings.events_at == here:
        _add_events(app, state, ids, record, more)
    elif admin is None:
        why = _elsewhere("events", "EVENTS_ON", settings.events_on, settings.events_at)
        _refuse(app, "POST", EVENTS, why)
    if settings.writes_at == here:
        for resource in _resources(state, ids):
            _add_records(app, state, resource, record, more)
    elif admin is None:
        for resource in _resources(state, ids):
            what = f"{resource.noun} writes"
            why = _elsewhere(what, "WRITES_ON", settings.writes_on, settings.writes_at)
            for method in ("PUT", "PATCH", "DELETE"):
                documented = resource.is_documented
                _refuse(app, method, resource.path, why, resource.in_path, documented=documented)


def add_item_reads(app: FastAPI, state: ServiceState) -> None:
    ids = id_kind(state)
    items = CatalogueItems(state.reader, state.refresher, ids, _item_texts(state))

    @app.get(
        ids.item_path,
        summary="Read an item",
        responses={**REFUSALS, **UNKNOWN},
        openapi_extra=_in_path(ids, "item_id"),
    )
    async def read(request: Request) -> Response:
        found = await items.read(ids.item(request))
        return Response(orjson.dumps(found), media_type=JSON)


def _add_events(
    app: FastAPI, state: ServiceState, ids: IdKind, record: Record, more: Responses
) -> None:
    events = Events(state.reader, state.metrics, state.settings.max_events, ids)
    limit = state.settings.max_body_bytes

    @app.post(
        EVENTS,
        summary="Append clicks",
        response_model=EventsAnswer,
        responses={
            207: {"model": EventsAnswer, "description": "Some are taken, some in `rejected`."},
            **REFUSALS,
            **more,
        },
        openapi_extra=_json_body(
            item_schema.events(state.store.schema, events.most, ids.in_body), ids.event_examples
        ),
    )
    async def append(request: Request) -> Response:
        with record(request, "events") as entry:
            _require_json(request)
            ctx = context_of(request.scope)
            body = await read_charged(request, limit)
            outcome = await events.take(body, turn_of(ctx))
            _stored(ctx, outcome.applied * EVENT_S)
            entry.update(applied=outcome.applied, rejected=len(outcome.rejected))
            status = outcome.status()
        return Response(outcome.json(ctx.request_id), status, media_type=JSON)


class _Records(Protocol):
    """Stored records, written by features by name."""

    async def contents(self) -> Contents: ...
    async def put(self, one: Item, values: Values, ctx: RequestContext, /) -> Values | None: ...
    async def patch(self, one: Item, values: Values, ctx: RequestContext, /) -> Values | None: ...
    async def delete(self, one: Item, /) -> None: ...


@dataclass(frozen=True, slots=True)
class _Resource:
    """What ``PUT``, ``PATCH`` and ``DELETE`` of a path write."""

    noun: str  # item or user
    path: str
    in_path: dict[str, Any]  # the path parameter
    parse: Callable[[Request], Item]
    records: _Records
    whole: dict[str, Any]  # JSON Schema of the body of PUT, and
    some: dict[str, Any]  # of PATCH
    example: Values
    summaries: tuple[str, str, str]
    is_logged: bool = True  # its id is, at the admin port
    is_documented: bool = True
    answers: Responses = field(default_factory=dict)  # of writes that answer with more than a 204


def _item_texts(state: ServiceState) -> ItemTexts:
    return ItemTexts(state.encoding, state.store.schema, state.settings)


def _resources(state: ServiceState, ids: IdKind) -> Iterator[_Resource]:
    """Items and users. A load may add user features later: without them users are not documented,
    and their path answers as an unknown one."""
    schema, texts = state.store.schema, _item_texts(state)
    yield _Resource(
        "item",
        ids.item_path,
        _in_path(ids, "item_id"),
        ids.item,
        CatalogueItems(state.reader, state.refresher, ids, texts),
        item_schema.item(schema, whole=True, has_texts=texts.is_on),
        item_schema.item(schema, whole=False, has_texts=texts.is_on),
        example_of(schema),
        ("Create or replace an item", "Change some of an item's features", "Remove an item"),
        answers=item_schema.WRITTEN if texts.is_on else {},
    )
    yield _Resource(
        "user",
        ids.user_path,
        _in_path(ids, "user_id"),
        ids.user,
        UserRecords(state.reader),
        item_schema.user(schema, whole=True),
        item_schema.user(schema, whole=False),
        users.example_of(schema),
        ("Create or replace a user", "Change some of a user's features", "Remove a user"),
        is_logged=False,  # personal
        is_documented=bool(schema.user),
    )


def _add_records(
    app: FastAPI, state: ServiceState, what: _Resource, record: Record, more: Responses
) -> None:
    records, limit = what.records, state.settings.max_body_bytes
    example = {"every feature": {"value": what.example}}
    putting, patching, deleting = what.summaries

    async def values(request: Request) -> dict[str, Any]:
        _require_json(request)
        body = await read_charged(request, limit)
        return parse_object(body, await records.contents())

    @contextmanager
    def writing(request: Request, verb: str) -> Iterator[Item]:
        with record(request, f"{verb}-{what.noun}") as entry:
            one = what.parse(request)
            if what.is_logged:
                entry[f"{what.noun}_id"] = one.given
            yield one

    @app.put(
        what.path,
        summary=putting,
        status_code=204,
        responses={**what.answers, **REFUSALS, **more},
        include_in_schema=what.is_documented,
        openapi_extra=what.in_path | _json_body(what.whole, example),
    )
    async def put(request: Request) -> Response:
        with writing(request, "put") as one:
            ctx = context_of(request.scope)
            written = await records.put(one, await values(request), ctx)
            _stored(ctx)
        return _written(written)

    @app.patch(
        what.path,
        summary=patching,
        status_code=204,
        responses={**what.answers, **REFUSALS, **UNKNOWN, **more},
        include_in_schema=what.is_documented,
        openapi_extra=what.in_path | _json_body(what.some, example),
    )
    async def patch(request: Request) -> Response:
        with writing(request, "patch") as one:
            ctx = context_of(request.scope)
            written = await records.patch(one, await values(request), ctx)
            _stored(ctx)
        return _written(written)

    @app.delete(
        what.path,
        summary=deleting,
        status_code=204,
        responses={**REFUSALS, **UNKNOWN, **more},
        include_in_schema=what.is_documented,
        openapi_extra=what.in_path,
    )
    async def delete(request: Request) -> Response:
        with writing(request, "delete") as one:
            await records.delete(one)
            _stored(context_of(request.scope))
        return Response(status_code=204)


def _written(values: Values | None) -> Response:
    if values is None:
        return Response(status_code=204)
    return Response(orjson.dumps(values), media_type=JSON)


def _refuse(
    app: FastAPI,
    method: str,
    path: str,
    why: str,
    extra: dict[str, Any] | None = None,
    *,
    documented: bool = True,
) -> None:
    """Add a route that answers 403 without reading the body."""

    async def refused(request: Request) -> Response:
        raise Forbidden(why)

    app.api_route(
        path,
        methods=[method],
        summary=f"Not at this port: {why}",
        status_code=403,
        responses={403: problem()},
        include_in_schema=documented,
        openapi_extra=extra,
    )(refused)


def _elsewhere(what: str, variable: str, chosen: Place, decided: Place) -> str:
    """Explain why they are not at the public port, and which setting decides it."""
    because = ""
    if chosen == "auto":
        tokens = "an admin token" if decided == "admin" else "no admin token"
        because = f": the service is not on a loopback address and has {tokens}"
    where = "taken at the admin port alone" if decided == "admin" else "off"
    return f"{what} are {where} ({PREFIX}{variable}={chosen}{because})"


def _require_json(request: Request) -> None:
    """Refuse other types: a page of another site may send those without a CORS preflight."""
    given = context_of(request.scope).headers.get(b"content-type", b"")
    if given.partition(b";")[0].strip().lower() != JSON.encode():
        raise UnsupportedMediaType(f"send Content-Type: {JSON}")


def _unrecorded(request: Request, action: str) -> AbstractContextManager[dict[str, object]]:
    return nullcontext({})


def _recorded_by(admin: Access) -> Record:
    """Check admin access and log the write, with the name of the token."""

    @contextmanager
    def record(request: Request, action: str) -> Iterator[dict[str, object]]:
        with audited(request, action) as entry:
            entry["who"] = context_of(request.scope).caller = admin.check(request)
            yield entry

    return record


async def read_charged(request: Request, limit: int) -> bytes:
    """Read the whole body, and wait for its turn in the loop's budget."""
    ctx = context_of(request.scope)
    body = await read_body(ctx, request, limit)
    if ctx.charge is not None:
        await ctx.charge.enter(len(body))
    return body


def _stored(ctx: RequestContext, seconds: float = ITEM_S) -> None:
    """Charge the time of other threads for a write."""
    if ctx.charge is not None:
        ctx.charge.spent(seconds)


def turn_of(ctx: RequestContext) -> Turn:
    """The function to await between two slices of this request's work."""
    return at_once if ctx.charge is None else ctx.charge.turn


def _in_path(ids: IdKind, name: str) -> dict[str, Any]:
    """The path parameter with the id."""
    parameter = {"name": name, "in": "path", "required": True, "schema": ids.in_path}
    return {"parameters": [parameter]}


def _json_body(schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    content = {JSON: {"schema": schema, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}
