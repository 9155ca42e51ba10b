"""Routes of events and items.

``QIN_EVENTS_ON`` and ``QIN_WRITES_ON`` choose the port of each. The public port refuses what is at
the admin port or off, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from service.access.admin import Access, audited
from service.api import item_schema
from service.api.body import parse_object, read_body
from service.api.events import Events, EventsAnswer
from service.api.id_kind import IdKind, id_kind
from service.api.items import CatalogueItems, example_of
from service.api.openapi import problem
from service.context import RequestContext, context_of
from service.errors import Forbidden, UnsupportedMediaType
from service.observability.exposition import Turn, at_once
from service.settings import PREFIX, Place
from service.state import ServiceState

EVENTS = "/v1/events"
JSON = "application/json"
# Time of other threads, with the embedded store: to store a click; to store and derive an item.
EVENT_S, ITEM_S = 10e-6, 0.7e-3
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
        _add_items(app, state, ids, record, more)
    elif admin is None:
        why = _elsewhere("item writes", "WRITES_ON", settings.writes_on, settings.writes_at)
        for method in ("PUT", "PATCH", "DELETE"):
            _refuse(app, method, ids.item_path, why, _in_path(ids))


def add_item_reads(app: FastAPI, state: ServiceState) -> None:
    ids = id_kind(state)
    items = CatalogueItems(state.reader, state.refresher, ids)

    @app.get(
        ids.item_path,
        summary="Read an item",
        responses={**REFUSALS, **UNKNOWN},
        openapi_extra=_in_path(ids),
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


def _add_items(
    app: FastAPI, state: ServiceState, ids: IdKind, record: Record, more: Responses
) -> None:
    items = CatalogueItems(state.reader, state.refresher, ids)
    limit = state.settings.max_body_bytes
    schema = state.store.schema
    example = {"every feature": {"value": example_of(schema)}}
    in_path = _in_path(ids)
    whole = in_path | _json_body(item_schema.item(schema, whole=True), example)
    some = in_path | _json_body(item_schema.item(schema, whole=False), example)

    contents = items.contents

    async def values(request: Request) -> dict[str, Any]:
        _require_json(request)
        return parse_object(await read_charged(request, limit), contents)

    @app.put(
        ids.item_path,
        summary="Create or replace an item",
        status_code=204,
        responses={**REFUSALS, **more},
        openapi_extra=whole,
    )
    async def put(request: Request) -> Response:
        with record(request, "put-item") as entry:
            item = ids.item(request)
            entry["item_id"] = item.given
            await items.put(item, await values(request))
            _stored(context_of(request.scope))
        return Response(status_code=204)

    @app.patch(
        ids.item_path,
        summary="Change some of an item's features",
        status_code=204,
        responses={**REFUSALS, **UNKNOWN, **more},
        openapi_extra=some,
    )
    async def patch(request: Request) -> Response:
        with record(request, "patch-item") as entry:
            item = ids.item(request)
            entry["item_id"] = item.given
            await items.patch(item, await values(request))
            _stored(context_of(request.scope))
        return Response(status_code=204)

    @app.delete(
        ids.item_path,
        summary="Remove an item",
        status_code=204,
        responses={**REFUSALS, **UNKNOWN, **more},
        openapi_extra=in_path,
    )
    async def delete(request: Request) -> Response:
        with record(request, "delete-item") as entry:
            item = ids.item(request)
            entry["item_id"] = item.given
            await items.delete(item)
            _stored(context_of(request.scope))
        return Response(status_code=204)


def _refuse(
    app: FastAPI, method: str, path: str, why: str, extra: dict[str, Any] | None = None
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


def _in_path(ids: IdKind) -> dict[str, Any]:
    """The path parameter that ``ids.item`` reads."""
    item_id = {"name": "item_id", "in": "path", "required": True, "schema": ids.in_path}
    return {"parameters": [item_id]}


def _json_body(schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    content = {JSON: {"schema": schema, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}
