"""The protocol's routes on the public port that tell of the server and its model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request

from service.api.oip.metadata import model_config, model_metadata, server_metadata
from service.api.oip.naming import asked_version
from service.api.oip.openapi import errors, parameters_of
from service.api.oip.stats import statistics
from service.application import House
from service.models.registry import Version

Handler = Callable[[Request], Awaitable[dict[str, Any]]]


def add_oip(app: FastAPI, house: House) -> None:
    """All but inference: see ``oip.infer``."""
    _add_health(app, house)
    if house.settings.metrics_on == "service":
        add_statistics(app, house)  # before the model's name takes their path
    _add_looking(app, house)


def _add_health(app: FastAPI, house: House) -> None:
    @app.get("/v2/health/live", summary="The process answers")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="As /readyz", responses=errors(503))
    async def ready() -> dict[str, bool]:
        house.ready()
        return {"ready": True}


def _add_looking(app: FastAPI, house: House) -> None:
    """Metadata, readiness and configuration of the model and its versions."""
    settings, versions = house.settings, house.versions

    def version_of(request: Request) -> Version:
        return versions.resolve(asked_version(house, request))[0]

    @app.get("/v2", summary="The server")
    async def server() -> dict[str, Any]:
        return server_metadata()

    async def metadata(request: Request) -> dict[str, Any]:
        return model_metadata(settings, version_of(request), versions.loaded())

    async def ready(request: Request) -> dict[str, Any]:
        version_of(request)
        house.ready()
        return {"name": settings.model_name, "ready": True}

    async def config(request: Request) -> dict[str, Any]:
        return model_config(settings, version_of(request))

    _look(app, house, "", "The model and its tensors", metadata)
    _look(app, house, "/ready", "In memory, and as /readyz", ready)
    _look(app, house, "/config", "Its configuration, as Triton has it", config)


def add_statistics(app: FastAPI, house: House) -> None:
    """At the port where the metrics are, of which they are made."""
    versions = house.versions

    @app.get("/v2/models/stats", summary="Statistics of every version in memory")
    async def all_stats() -> dict[str, Any]:
        return await statistics(house, versions.loaded())

    async def stats(request: Request) -> dict[str, Any]:
        asked = asked_version(house, request)
        names = versions.loaded() if asked is None else [versions.resolve(asked)[0].name]
        return await statistics(house, names)

    _look(app, house, "/stats", "Its statistics", stats)


def _look(app: FastAPI, house: House, path: str, summary: str, handler: Handler) -> None:
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        app.get(
            prefix + path,
            summary=summary,
            responses=errors(404, 500, 503),
            openapi_extra={"parameters": parameters_of(prefix, house)},
        )(handler)
