"""The page Load: a load test against this service, watched as it runs, and its reports."""

from __future__ import annotations

import asyncio
from time import time

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.access.admin import audited
from service.console.figures import SMOOTH_S, parts, summed, window
from service.console.forms import read_form
from service.console.guard import Guard, Visitor
from service.console.load_folder import CONFIRMATION, MOST_CANDIDATES, MOST_RATE, MOST_S, Plan
from service.console.load_runs import LoadRuns
from service.console.pages import HEADERS, Pages
from service.context import context_of
from service.errors import Conflict, InvalidField, ServiceError, UnknownItem
from service.state import ServiceState

ROOT = "/console/load"
# A report is one file with its own styles, and no script; it may not act for the console.
REPORT_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
)
START = {"kind": "run", "rate": "100", "seconds": "30", "candidates": "64"}


class LoadPage:
    """Off, unless QIN_CONSOLE_LOADTEST is on."""

    def __init__(self, state: ServiceState, pages: Pages, guard: Guard) -> None:
        self._state, self._pages, self._guard = state, pages, guard
        self._runs = LoadRuns(state)

    async def form(self, request: Request, visitor: Visitor) -> Response:
        """Show the form, the load test that runs, and the reports."""
        return await self._page(visitor, START)

    async def start(self, request: Request) -> Response:
        """Start what was confirmed."""
        visitor, form = self._guard.visitor(request), await read_form(request)
        self._guard.check_command(visitor, form.get("csrf", ""))
        try:
            plan = Plan.of(form)
            fields = {"rate": plan.rate, "seconds": plan.seconds}
            with audited(request, f"load test: {plan.kind}", self._state.trail, **fields) as entry:
                entry["who"] = visitor.name
                await self._runs.start(plan, visitor.name)
        except (Conflict, InvalidField) as error:
            context_of(request.scope).problem = error.slug
            return await self._page(visitor, {**START, **form}, error)
        return RedirectResponse(ROOT, 303, HEADERS)

    async def stop(self, request: Request) -> Response:
        """Stop the one that runs."""
        visitor, form = self._guard.visitor(request), await read_form(request)
        self._guard.check_command(visitor, form.get("csrf", ""))
        with audited(request, "load test: stop", self._state.trail) as entry:
            entry["who"] = visitor.name
            await asyncio.to_thread(self._runs.folder.stop)
        return RedirectResponse(ROOT, 303, HEADERS)

    async def report(self, request: Request, visitor: Visitor) -> Response:
        """Show a report as it was written."""
        content = await asyncio.to_thread(self._runs.folder.report, request.path_params["name"])
        if content is None:
            raise UnknownItem("no such report")
        headers = {**HEADERS, "Content-Security-Policy": REPORT_POLICY}
        return Response(content, headers=headers, media_type="text/html")

    async def _page(
        self, visitor: Visitor, form: dict[str, str], fault: ServiceError | None = None
    ) -> Response:
        recent, folder = self._state.recent, self._runs.folder
        found = await asyncio.to_thread(folder.latest)
        run = found[0] if found else None
        now = window(summed(parts(recent, recent.last, SMOOTH_S)), SMOOTH_S)
        return self._pages.page(
            "load",
            visitor,
            fault.status if fault else 200,
            fault=fault.detail if fault else None,
            form=form,
            run=run,
            running=run is not None and run.ended is None,
            now=now,
            earlier=found[1:],
            elapsed=0 if run is None else int(time() - run.began),
            confirmation=CONFIRMATION,
            most={"rate": MOST_RATE, "seconds": MOST_S, "candidates": MOST_CANDIDATES},
            target_ms=self._state.settings.target_ms,
        )
