"""The repository extension, on the admin port: the hot swap in the protocol's words.

Loading the model brings what is newest in the models folder and answers with it; a version is
loaded beside the active one under a name of its own (``…/models/qin/versions/V/load``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request

from model_export.bundle.errors import BundleError
from service.access.admin import Access
from service.api.admin_commands import AdminCommands
from service.api.body import Contents, parse_object, read_body
from service.api.oip.openapi import errors, parameters_of
from service.api.oip.routes import asked_version
from service.context import context_of
from service.errors import Conflict, InvalidField, UnknownVersion
from service.lifecycle.catalog import IN_MEMORY, UNDER_WAY, ModelEntry, State
from service.lifecycle.manager import ModelManager
from service.state import ServiceState

MOST_BYTES, CONTENTS = 65_536, Contents.of(values=1024, quotes=1024)
MODEL = "/v2/repository/models/{model}"
VERSION = f"{MODEL}/versions/{{version}}"
REFUSALS = errors(400, 401, 403, 404, 409, 413, 415, 503)


def add_repository(app: FastAPI, state: ServiceState) -> None:
    manager, access, commands = state.manager, Access(state.settings), AdminCommands(state)

    @app.post("/v2/repository/index", summary="List the versions", responses=REFUSALS)
    async def index(request: Request) -> list[dict[str, str]]:
        access.check(request)
        only_ready = _flag(await _body(request), "ready")
        found = [_entry(state, version) for version in await manager.catalog.listing()]
        return [entry for entry in found if entry["state"] == "READY" or not only_ready]

    async def load(request: Request) -> dict[str, Any]:
        async def verb() -> ModelEntry:
            version = await _asked(state, request)
            if version is None:
                return await manager.activate(await _newest(manager))
            return await manager.load(version)

        return await commands.run(request, "load", request.path_params.get("version"), verb)

    async def unload(request: Request) -> dict[str, Any]:
        async def verb() -> ModelEntry:
            version = await _asked(state, request)
            if version is None:
                path = request.url.path.replace("/unload", "/versions/V/unload")
                raise Conflict(f"the model cannot be unloaded as a whole; a version can: {path}")
            return await manager.unload(version)

        return await commands.run(request, "unload", request.path_params.get("version"), verb)

    for path in (MODEL, VERSION):
        extra = {"parameters": parameters_of(path, state)}
        for name, summary, handler in (
            ("load", "Load a version", load),
            ("unload", "Unload a version", unload),
        ):
            app.post(f"{path}/{name}", summary=summary, responses=REFUSALS, openapi_extra=extra)(
                handler
            )


async def _asked(state: ServiceState, request: Request) -> str | None:
    """The version in the path, once the body is known to ask for nothing else."""
    version = asked_version(state, request)
    parameters = (await _body(request)).get("parameters")
    if not isinstance(parameters, dict | None):
        raise InvalidField.of("parameters", detail="an object")
    for name in parameters or {}:
        if name == "config" or name.startswith("file:"):
            detail = "a bundle brings its own; publish one in the models folder"
            raise InvalidField.of("parameters", name, detail=detail)
        if name != "unload_dependents":  # which always says so; nothing depends on a version
            raise InvalidField.of("parameters", name, detail="no such parameter")
    return version


async def _body(request: Request) -> Mapping[str, Any]:
    """An object; an empty body is one."""
    body = await read_body(context_of(request.scope), request, MOST_BYTES)
    return parse_object(body, CONTENTS) if body else {}


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name, False)
    if not isinstance(value, bool):
        raise InvalidField.of(name, detail="true or false")
    return value


async def _newest(manager: ModelManager) -> str:
    try:
        return (await asyncio.to_thread(manager.catalog.repository.newest)).version
    except BundleError as error:
        raise UnknownVersion(str(error)) from error


def _entry(state: ServiceState, version: Mapping[str, Any]) -> dict[str, str]:
    """One version, of the catalog's listing."""
    return {
        "name": state.settings.model_name,
        "version": version["version"],
        "state": _triton_state(State(version["state"])),
        "reason": version["reason"] or version["step"] or "",
    }


def _triton_state(state: State) -> str:
    if state is State.DRAINING:
        return "UNLOADING"
    if state in UNDER_WAY:
        return "LOADING"
    return "READY" if state in IN_MEMORY else "UNAVAILABLE"
