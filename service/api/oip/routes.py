"""The protocol's read-only routes: health, metadata, configuration and statistics."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request

from service.api.oip.metadata import model_config, model_metadata, server_metadata
from service.api.oip.openapi import errors, parameters_of
from service.api.oip.stats import statistics
from service.errors import UnknownModel, UnknownVersion
from service.models.loaded_model import LoadedModel
from service.state import ServiceState

Handler = Callable[[Request], Awaitable[dict[str, Any]]]
LONGEST_VERSION = 64  # characters


def add_oip(app: FastAPI, state: ServiceState, id_type: str) -> None:
    """All but inference: see ``oip.infer``."""
    _add_health(app, state)
    if state.settings.metrics_on == "service":
        add_statistics(app, state)  # before the model's name takes their path
    _add_looking(app, state, id_type)


def _add_health(app: FastAPI, state: ServiceState) -> None:
    @app.get("/v2/health/live", summary="Liveness")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="Readiness", responses=errors(503))
    async def ready() -> dict[str, bool]:
        state.ready()
        return {"ready": True}


def _add_looking(app: FastAPI, state: ServiceState, id_type: str) -> None:
    """Metadata, readiness and configuration of the model and its versions."""
    settings, registry = state.settings, state.registry

    def version_of(request: Request) -> LoadedModel:
        return registry.resolve(asked_version(state, request))[0]

    @app.get("/v2", summary="Server metadata")
    async def server() -> dict[str, Any]:
        return server_metadata()

    async def metadata(request: Request) -> dict[str, Any]:
        return model_metadata(settings, version_of(request), registry.loaded(), id_type)

    async def ready(request: Request) -> dict[str, Any]:
        version_of(request)
        state.ready()
        return {"name": settings.model_name, "ready": True}

    async def config(request: Request) -> dict[str, Any]:
        return model_config(settings, version_of(request), id_type)

    _look(app, state, "", "Model metadata", metadata)
    _look(app, state, "/ready", "Model readiness", ready)
    _look(app, state, "/config", "Model configuration", config)


def add_statistics(app: FastAPI, state: ServiceState) -> None:
    """At the port where the metrics are, of which they are made."""
    registry = state.registry

    @app.get("/v2/models/stats", summary="Statistics of every version in memory")
    async def all_stats() -> dict[str, Any]:
        return await statistics(state, registry.loaded())

    async def stats(request: Request) -> dict[str, Any]:
        asked = asked_version(state, request)
        names = registry.loaded() if asked is None else [registry.resolve(asked)[0].name]
        return await statistics(state, names)

    _look(app, state, "/stats", "Model statistics", stats)


def _look(app: FastAPI, state: ServiceState, path: str, summary: str, handler: Handler) -> None:
    for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        app.get(
            prefix + path,
            summary=summary,
            responses=errors(404, 500, 503),
            openapi_extra={"parameters": parameters_of(prefix, state)},
        )(handler)


def asked_version(state: ServiceState, request: Request) -> str | None:
    """The version or alias in the path. UnknownModel, UnknownVersion."""
    model, version = request.path_params["model"], request.path_params.get("version")
    if model != state.settings.model_name:
        raise UnknownModel(f"the only model is {state.settings.model_name!r}")
    if version is not None and len(version) > LONGEST_VERSION:
        raise UnknownVersion(f"no version has a name of {len(version)} letters")
    return version
