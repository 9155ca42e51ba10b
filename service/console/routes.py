"""Routes of the console: ``/console`` and below, at the admin port.

No route is in the OpenAPI document: they are pages for a browser. Programs use the admin API.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from urllib.parse import quote, urlsplit

import orjson
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from service.access.admin import audited
from service.api.problems import answer_problem, problem_of
from service.console.assets import FOREVER, Assets
from service.console.figures import MINUTES
from service.console.forms import read_form
from service.console.guard import Guard, Visitor, cookie_name
from service.console.live import Live
from service.console.load_page import LoadPage
from service.console.pages import HEADERS, Pages
from service.console.try_page import TryPage
from service.console.versions import VersionPages
from service.context import context_of
from service.errors import InvalidField, ServiceError, Unauthorised
from service.state import ServiceState

ROOT = "/console"
LOGIN = f"{ROOT}/login"
BY_ITSELF = {  # kinds of switches
    "start": "the service",
    "follow": "the policy newest",
    "automatic_rollback": "the rollback monitor",
    "fleet": "the fleet",
}
OWN_PATH = re.compile(rf"{ROOT}(/[\w-][\w.-]*)*")
Page = Callable[[Request], Awaitable[Response]]
Show = Callable[[Request, Visitor], Awaitable[ASGIApp]]


class Console:
    """The console's routes of one application."""

    def __init__(self, app: FastAPI, state: ServiceState) -> None:
        self._app, self._state = app, state
        self._assets = Assets()
        self._pages = Pages(state.settings, self._assets)
        self._guard = Guard(state.settings)
        self._live = Live(state)
        self._versions = VersionPages(state, self._pages, self._guard)
        self._try = TryPage(state, self._pages, self._guard)
        state.manager.on_switch = self._switched

    def add(self) -> None:
        """Add the routes to the application."""
        self._route("/assets/{digest}/{name}", self._asset)
        self._route("/login", self._page(self._login_form))
        self._route("/login", self._page(self._login), "POST")
        self._route("/logout", self._page(self._logout), "POST")
        self._route("", self._page(self._seen(self._now)))
        self._route("/", self._page(self._to_root))
        self._route("/", self._page(self._to_root), under="")
        self._route("/versions", self._page(self._seen(self._versions.every)))
        one = "/versions/{version}"
        self._route(one, self._page(self._seen(self._versions.one)))
        self._route(one + "/{action}", self._page(self._seen(self._versions.confirm)))
        self._route(one + "/{action}", self._page(self._versions.act), "POST")
        self._route("/try", self._page(self._seen(self._try.form)))
        self._route("/try", self._page(self._try.answer), "POST")
        if self._state.settings.console_loadtest:
            load = LoadPage(self._state, self._pages, self._guard)
            self._route("/load", self._page(self._seen(load.form)))
            self._route("/load", self._page(load.start), "POST")
            self._route("/load/stop", self._page(load.stop), "POST")
            self._route("/load/{name}", self._page(self._seen(load.report)))
        self._route("/stream", self._data(self._stream))
        self._route("/series", self._data(self._series))

    def _switched(self, version: str, before: str | None, kind: str) -> None:
        """Write down a switch that no administrator made; one process of several does."""
        if kind in BY_ITSELF and self._state.recent.number == 0:
            detail = f"in place of {before}" if before else None
            self._state.trail.add(
                action=kind.replace("_", " "),
                who=BY_ITSELF[kind],
                model_version=version,
                outcome="done",
                detail=detail,
            )

    def _route(
        self,
        path: str,
        endpoint: Callable[..., Awaitable[ASGIApp]],
        *methods: str,
        under: str = ROOT,
    ) -> None:
        async def answered(request: Request) -> ASGIApp:
            context_of(request.scope).route = f"{under}{path}"
            return await endpoint(request)

        route = Route(f"{under}{path}", answered, methods=list(methods) or ["GET"])
        self._app.router.routes.append(route)

    def _page(self, show: Page) -> Page:
        """Answer errors with pages: without a session, with the form to log in."""

        async def page(request: Request) -> Response:
            try:
                self._guard.check_site(request, page=request.method in ("GET", "HEAD"))
                return await show(request)
            except Unauthorised:
                wanted = ROOT if request.method == "POST" else quote(_target(request))
                return RedirectResponse(f"{LOGIN}?next={wanted}", 303, HEADERS)
            except ServiceError as error:
                context_of(request.scope).problem = error.slug
                problem = problem_of(error)
                return self._pages.page("problem", None, problem.status, problem=problem)
            except Exception as error:  # it is logged there; the page says no more of it
                status = (await answer_problem(request, error)).status_code
                problem = problem_of(error)
                return self._pages.page("problem", None, status, problem=problem)

        return page

    def _data(self, show: Show) -> Callable[[Request], Awaitable[ASGIApp]]:
        """Answer errors with problem documents: for the pages' scripts."""

        async def data(request: Request) -> ASGIApp:
            self._guard.check_site(request)
            return await show(request, self._guard.visitor(request))

        return data

    def _seen(self, show: Show) -> Page:
        async def seen(request: Request) -> Response:
            found = await show(request, self._guard.visitor(request))
            assert isinstance(found, Response)
            return found

        return seen

    async def _asset(self, request: Request) -> Response:
        address = "{digest}/{name}".format(**request.path_params)
        asset = self._assets.find(address)
        if asset is None:
            return Response(status_code=404)
        headers = {**HEADERS, "Cache-Control": FOREVER}
        return Response(asset.content, headers=headers, media_type=asset.media_type)

    async def _login_form(self, request: Request) -> Response:
        if self._guard.open:
            return RedirectResponse(ROOT, 303, HEADERS)
        wanted = _own(request.query_params.get("next"))
        return self._pages.page("login", None, wanted=wanted, refused=False)

    async def _login(self, request: Request) -> Response:
        form = await read_form(request)
        wanted = _own(form.get("next"))
        if self._guard.open:
            return RedirectResponse(ROOT, 303, HEADERS)
        try:
            with audited(request, "login", self._state.trail) as entry:
                cookie, session = self._guard.log_in(request, form.get("token", ""))
                entry["who"] = session.name
        except Unauthorised as error:
            context_of(request.scope).problem = error.slug
            return self._pages.page("login", None, 401, wanted=wanted, refused=True)
        answer = RedirectResponse(wanted, 303, HEADERS)
        answer.set_cookie(
            cookie_name(request.scope),
            cookie,
            max_age=self._state.settings.console_session_s,
            path=ROOT,
            httponly=True,
            samesite="strict",
        )
        return answer

    async def _logout(self, request: Request) -> Response:
        visitor, form = self._guard.visitor(request), await read_form(request)
        self._guard.check_csrf(visitor, form.get("csrf", ""))
        with audited(request, "logout", self._state.trail) as entry:
            entry["who"] = visitor.name
            await self._guard.log_out(visitor)
        answer = RedirectResponse(LOGIN, 303, HEADERS)
        answer.delete_cookie(cookie_name(request.scope), path=ROOT, httponly=True)
        return answer

    async def _to_root(self, request: Request) -> Response:
        """The port's ``/`` and a slash at the end lead to the console, too."""
        return RedirectResponse(ROOT, 303, HEADERS)

    async def _now(self, request: Request, visitor: Visitor) -> Response:
        frame = self._live.frame() | {"series": self._live.series(5)}
        text = orjson.dumps(frame).decode().replace("<", "\\u003c")  # within a script element
        return self._pages.page(
            "now", visitor, frame=frame, frame_json=text, target_ms=self._state.settings.target_ms
        )

    async def _stream(self, request: Request, visitor: Visitor) -> ASGIApp:
        return self._live.stream(lambda: self._guard.is_over(visitor))

    async def _series(self, request: Request, visitor: Visitor) -> Response:
        asked = request.query_params.get("minutes", "5")
        if asked not in map(str, MINUTES):
            raise InvalidField(f"minutes: should be one of {', '.join(map(str, MINUTES))}")
        content = orjson.dumps(self._live.series(int(asked)))
        return Response(content, headers=HEADERS, media_type="application/json")


def _target(request: Request) -> str:
    """Path and query, as they were asked for."""
    query = request.scope["query_string"].decode("latin-1")
    return f"{request.scope['path']}?{query}" if query else str(request.scope["path"])


def _own(wanted: str | None) -> str:
    """A page of the console; never one elsewhere."""
    try:
        parts = urlsplit(wanted or "")
    except ValueError:  # half an IPv6 address
        return ROOT
    own = OWN_PATH.fullmatch(parts.path)
    if not own or parts.scheme or parts.netloc or parts.path == LOGIN:
        return ROOT
    return parts.path + (f"?{parts.query}" if parts.query else "")


def add_console(app: FastAPI, state: ServiceState) -> None:
    """Add the console, unless it is off."""
    if state.settings.console:
        Console(app, state).add()
