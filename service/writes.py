"""The routes that write: events, and items' features."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Request, Response
from pydantic import WithJsonSchema

from service import body_schemas
from service.catalogue_items import CatalogueItems, example_of, item_id_of
from service.events import EVENT_EXAMPLES, Events, EventsAnswer
from service.exchange import exchange_of
from service.house import House
from service.openapi import problem
from service.request import parse_object, read_body

ItemId = Annotated[str, WithJsonSchema(body_schemas.ITEM_ID)]  # read by ``item_id_of``
EVENTS, ITEM = "/v1/events", "/v1/items/{item_id}"
Responses = dict[int | str, dict[str, Any]]
REFUSALS: Responses = {status: problem() for status in (400, 413, 415, 422, 500, 503)}
UNKNOWN: Responses = {404: problem()}


def add_writes(app: FastAPI, house: House) -> None:
    _add_events(app, house)
    _add_items(app, house)


def _add_events(app: FastAPI, house: House) -> None:
    events = Events(house.reader, house.metrics, house.settings.max_events)
    limit = house.settings.max_body_bytes

    @app.post(
        EVENTS,
        summary="Append clicks, which the very next score sees",
        response_model=EventsAnswer,
        responses={
            207: {"model": EventsAnswer, "description": "Some are taken, some in `rejected`."},
            **REFUSALS,
        },
        openapi_extra=_json_body(
            body_schemas.events(house.store.schema, events.most), EVENT_EXAMPLES
        ),
    )
    async def append(request: Request) -> Response:
        exchange = exchange_of(request)
        body = parse_object(await read_body(request, limit), events.most_names)
        outcome = await events.take(body)
        status = outcome.status()
        return Response(outcome.json(exchange.request_id), status, media_type="application/json")


def _add_items(app: FastAPI, house: House) -> None:
    items = CatalogueItems(house.reader, house.freshness)
    limit = house.settings.max_body_bytes
    schema = house.store.schema
    example = {"every feature": {"value": example_of(schema)}}
    whole = _json_body(body_schemas.item(schema, whole=True), example)
    some = _json_body(body_schemas.item(schema, whole=False), example)

    async def values(request: Request) -> dict[str, Any]:
        return parse_object(await read_body(request, limit), items.most_names)

    @app.get(ITEM, summary="An item's features", responses={**REFUSALS, **UNKNOWN})
    async def read(item_id: ItemId) -> Response:
        found = await items.read(item_id_of(item_id))
        return Response(orjson.dumps(found), media_type="application/json")

    @app.put(
        ITEM,
        summary="Put an item whole",
        status_code=204,
        responses=REFUSALS,
        openapi_extra=whole,
    )
    async def put(item_id: ItemId, request: Request) -> Response:
        chosen = item_id_of(item_id)
        await items.put(chosen, await values(request))
        return Response(status_code=204)

    @app.patch(
        ITEM,
        summary="Change some of an item's features",
        status_code=204,
        responses={**REFUSALS, **UNKNOWN},
        openapi_extra=some,
    )
    async def patch(item_id: ItemId, request: Request) -> Response:
        chosen = item_id_of(item_id)
        await items.patch(chosen, await values(request))
        return Response(status_code=204)

    @app.delete(
        ITEM,
        summary="Remove an item",
        status_code=204,
        responses={**REFUSALS, **UNKNOWN},
    )
    async def delete(item_id: ItemId) -> Response:
        await items.delete(item_id_of(item_id))
        return Response(status_code=204)


def _json_body(schema: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": schema, "examples": examples}}
    return {"requestBody": {"required": True, "content": content}}
