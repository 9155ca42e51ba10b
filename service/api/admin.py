"""The admin API, on a port of its own: which versions there are, and what to do with them.

No route takes a path or a URL: a version is a name among those in the models folder.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from feature_store.errors import StoreError
from model_export.bundle.manifest import VERSION_PATTERN
from service.access.admin import Access
from service.api.admin_commands import AdminCommands, Command
from service.api.body import Contents, read_body, refuse_repeated, validate
from service.api.budget import LoopBudgetMiddleware
from service.api.descriptions import describe
from service.api.direct import DirectItemWrites
from service.api.middleware import RequestContextMiddleware
from service.api.oip.repository import add_repository
from service.api.oip.routes import add_statistics
from service.api.openapi import exact_bounds, problem
from service.api.operations import add_docs, add_head, add_metrics
from service.api.problems import answer_problem
from service.api.writes import add_writes
from service.console.routes import add_console
from service.context import context_of
from service.errors import ServiceError
from service.lifecycle.catalog import ModelEntry
from service.state import ServiceState

Name = Annotated[str, Path(pattern=VERSION_PATTERN, description="A version in the models folder.")]
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: problem() for status in (401, 403, 404, 409, 422, 503)
}


class ShareOf(BaseModel):
    """A share of users (canary) or requests (shadow)."""

    model_config = ConfigDict(strict=True, extra="forbid")
    share: Annotated[float, Field(ge=0, le=1, description="0 ends it.")]


MOST_BYTES, CONTENTS = 4096, Contents.of(values=16, quotes=64)
SHARE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ShareOf.model_json_schema()}},
    }
}


def create_admin(state: ServiceState) -> ASGIApp:
    app = FastAPI(
        title="QIN Serving, admin",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for kind in (ServiceError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer_problem)
    _add_looking(app, state)
    _add_verbs(app, state)
    add_repository(app, state)
    add_writes(app, state, Access(state.settings))
    add_docs(app)
    add_console(app, state)
    if state.settings.metrics_on == "admin":
        add_metrics(app, state)  # without a token: it tells no more than it did in public
        add_statistics(app, state)
    describe(app)
    add_head(app)
    exact_bounds(app)
    budgeted = LoopBudgetMiddleware(DirectItemWrites(app), state.budget, others=False)
    return RequestContextMiddleware(budgeted, state.settings, state.metrics, state.traces)


def _add_looking(app: FastAPI, state: ServiceState) -> None:
    access = Access(state.settings)

    @app.get("/admin/models", summary="Every version, its state and roles")
    async def models(request: Request) -> dict[str, Any]:
        access.check(request)
        content = {**state.manager.catalog.roles(), "models": await state.manager.catalog.listing()}
        if state.settings.fleet:
            try:
                found = await state.fleet.reports()
                content["processes"] = [report.model_dump(exclude={"mark"}) for report in found]
            except StoreError as error:
                content["processes"], content["fleet_fault"] = [], str(error)
        return content

    @app.get("/admin/models/{version}", summary="One version and its state", responses=REFUSALS)
    async def model(request: Request, version: Name) -> dict[str, Any]:
        access.check(request)
        return state.manager.catalog.describe(await state.manager.catalog.known(version))


def _add_verbs(app: FastAPI, state: ServiceState) -> None:
    manager, run = state.manager, AdminCommands(state).run

    def route(action: str, summary: str, verb: Callable[[str], Awaitable[ModelEntry]]) -> None:
        async def handler(request: Request, version: Name) -> dict[str, Any]:
            return await run(request, action, version, lambda: verb(version))

        path = f"/admin/models/{{version}}/{action}"
        app.post(path, summary=summary, responses=REFUSALS, name=action)(handler)

    def route_with_share(
        action: str, summary: str, verb: Callable[[str, float], Awaitable[ModelEntry]]
    ) -> None:
        async def handler(request: Request, version: Name) -> dict[str, Any]:
            async def with_share() -> ModelEntry:  # whose body is read once the caller is known
                body = await read_body(context_of(request.scope), request, MOST_BYTES)
                CONTENTS.check(body)
                share = validate(ShareOf, body).share
                refuse_repeated(body, strings=1)
                return await verb(version, share)

            return await run(request, action, version, with_share)

        path = f"/admin/models/{{version}}/{action}"
        app.post(
            path,
            summary=summary,
            responses={**REFUSALS, **{status: problem() for status in (400, 413, 415)}},
            name=action,
            openapi_extra=SHARE_BODY,
        )(handler)

    def route_of_all(action: str, summary: str, verb: Command) -> None:
        async def handler(request: Request) -> dict[str, Any]:
            return await run(request, action, None, verb)

        app.post(f"/admin/models/{action}", summary=summary, responses=REFUSALS, name=action)(
            handler
        )

    route("load", "Verify it and load it into memory", manager.load)
    route("activate", "Make it the active version; loads it if necessary", manager.activate)
    route("unload", "Unload it once its last answer has been given", manager.unload)
    route_with_share("canary", "Answer a share of the users with it", manager.canary)
    route_with_share("shadow", "Let it score a copy of a share of the requests", manager.set_shadow)
    route_of_all(
        "promote", "Make the canary, or else the shadow, the active version", manager.promote
    )
    route_of_all("rollback", "Go back to the previous version", manager.rollback)
