"""The protocol's routes on the public port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from service.ask import ask
from service.errors import UnknownModel, UnknownVersion
from service.exchange import INFER, INFER_VERSION, exchange_of
from service.house import House
from service.oip.binary import LENGTH_HEADER, json_length
from service.oip.compression import PLAIN, deflate, read_inflated, wanted_encoding
from service.oip.message import read_message
from service.oip.metadata import model_config, model_metadata, server_metadata
from service.oip.openapi import errors, infer_documented, parameters_of
from service.oip.outputs import response, wanted_outputs
from service.oip.parameters import asked_priority, ignored, refuse_sequences, seconds_allowed
from service.oip.stats import statistics
from service.oip.tensors import question_of
from service.request import deadline_seconds
from service.versions import Version

LONGEST_VERSION = 64
Handler = Callable[[Request], Awaitable[dict[str, Any]]]


def add_oip(app: FastAPI, house: House) -> None:
    _add_infer(app, house)
    _add_health(app, house)
    _add_looking(app, house)


def asked_version(house: House, request: Request) -> str | None:
    """The version in the path, which may be an alias. UnknownModel, UnknownVersion."""
    model, version = request.path_params["model"], request.path_params.get("version")
    if model != house.settings.model_name:
        raise UnknownModel(f"the only model is {house.settings.model_name!r}")
    if version is not None and len(version) > LONGEST_VERSION:
        raise UnknownVersion(f"no version has a name of {len(version)} letters")
    return version


def _add_infer(app: FastAPI, house: House) -> None:
    settings = house.settings

    async def infer(request: Request) -> Response:
        exchange, asked = exchange_of(request), asked_version(house, request)
        longest = deadline_seconds(request, settings.max_deadline_ms, settings.max_deadline_ms)
        last = exchange.timings.started + longest  # until the body says what it may take
        body = await read_inflated(request, settings.max_body_bytes, last)
        exchange.timings.lap("receive")

        start = json_length(request.headers.getlist(LENGTH_HEADER), len(body))
        message = read_message(body[:start])
        refuse_sequences(message)
        wanted = wanted_outputs(message)
        question = question_of(message, body, start, settings.max_candidates)
        deadline = exchange.timings.started + seconds_allowed(message, request, settings)
        exchange.priority = asked_priority(message, exchange.priority)
        version, answer = await ask(house, request, question, asked, deadline)

        members: dict[str, Any] = {"model_name": settings.model_name, "model_version": version}
        if message.id is not None:
            members["id"] = message.id
        content, headers = response(answer, wanted, members, ignored(message))
        encoding = wanted_encoding(request.headers.get("accept-encoding"))
        if encoding != PLAIN:
            content = deflate(content, encoding)
            headers |= {"Content-Encoding": encoding, "Vary": "Accept-Encoding"}
        exchange.timings.lap("encode")
        house.swap.answered(question, answer)
        return Response(content, headers=headers)

    for path in (INFER, INFER_VERSION):
        documented = infer_documented(parameters_of(path, house))
        app.post(path, summary="Score a candidate list for a user", **documented)(infer)


def _add_health(app: FastAPI, house: House) -> None:
    @app.get("/v2/health/live", summary="The process answers")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="As /readyz", responses=errors(503))
    async def ready() -> dict[str, bool]:
        house.ready()
        return {"ready": True}


def _add_looking(app: FastAPI, house: House) -> None:
    """Metadata, readiness, configuration and statistics of the model and its versions."""
    settings, versions = house.settings, house.versions

    def version_of(request: Request) -> Version:
        return versions.resolve(asked_version(house, request))[0]

    def look(path: str, summary: str, handler: Handler) -> None:
        for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            app.get(
                prefix + path,
                summary=summary,
                responses=errors(404, 500, 503),
                openapi_extra={"parameters": parameters_of(prefix, house)},
            )(handler)

    @app.get("/v2", summary="The server")
    async def server() -> dict[str, Any]:
        return server_metadata()

    @app.get("/v2/models/stats", summary="Statistics of every version in memory")
    async def all_stats() -> dict[str, Any]:
        return await statistics(house, versions.loaded())

    async def metadata(request: Request) -> dict[str, Any]:
        return model_metadata(settings, version_of(request), versions.loaded())

    async def ready(request: Request) -> dict[str, Any]:
        version_of(request)
        house.ready()
        return {"name": settings.model_name, "ready": True}

    async def config(request: Request) -> dict[str, Any]:
        return model_config(settings, version_of(request))

    async def stats(request: Request) -> dict[str, Any]:
        named = asked_version(house, request) is not None
        return await statistics(house, [version_of(request).name] if named else versions.loaded())

    look("", "The model and its tensors", metadata)
    look("/ready", "In memory, and as /readyz", ready)
    look("/config", "Its configuration, as Triton has it", config)
    look("/stats", "Its statistics", stats)
