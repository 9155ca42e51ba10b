"""ASGI middleware that charges requests to the loop's budget, but for probes and scoring."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission.loop_budget import LoopBudget
from service.admission.loop_charge import Charge, over_capacity
from service.api.gate import OverloadResponse
from service.api.problems import EMBEDDINGS, answer_problem
from service.context import PROBES, context_of
from service.errors import OverCapacity
from service.observability.metered import Metered

EVENTS, METRICS = "/v1/events", "/metrics"
RECORDS = ("/v1/items/", "/v1/users/")
MODELS, STATS = "/v2/models/", "/stats"
CHARGED_LATER = frozenset({"events", "items", "embeddings"})  # when their body is here
WRITING = frozenset({"POST", "PUT", "PATCH"})


def kind_of(path: str) -> str | None:
    """The kind under which a path is charged; None for a probe."""
    if path in PROBES:
        return None
    if path == EVENTS:
        return "events"
    if path == EMBEDDINGS:
        return "embeddings"
    if path.startswith(RECORDS):
        return "items"
    if path == METRICS:
        return "metrics"
    if path.startswith(MODELS) and path.endswith(STATS):
        return "stats"
    return "other"


class LoopBudgetMiddleware:
    """ASGI middleware around the framework."""

    def __init__(self, app: ASGIApp, budget: LoopBudget, *, others: bool = True) -> None:
        """``others``: requests of no kind of their own, too."""
        self._app, self._budget, self._others = app, budget, others
        self._overload = OverloadResponse(over_capacity())
        self._embeddings = OverloadResponse(over_capacity(), openai=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = kind_of(scope["path"]) if scope["type"] == "http" else None
        if kind is None or (kind == "other" and not self._others):
            await self._app(scope, receive, send)
            return
        budget, ctx = self._budget, context_of(scope)
        size = ctx.announced
        if not budget.has_room(kind, budget.predict(kind, size)):
            await budget.refused(kind, unread=size)
            await self._refuse(scope, receive, send)
            return
        charge = ctx.charge = Charge(budget, kind)
        try:
            if not (scope["method"] in WRITING and kind in CHARGED_LATER):
                # Of these, a body is read to be thrown away.
                await charge.enter(size)
            await Metered(self._app(scope, receive, send), charge.spent)  # type: ignore[arg-type]
        except OverCapacity as error:
            await (await answer_problem(Request(scope), error))(scope, receive, send)
        finally:
            charge.leave()
            ctx.charge = None

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(MODELS):
            await (await answer_problem(Request(scope), over_capacity()))(scope, receive, send)
            return
        overload = self._embeddings if scope["path"] == EMBEDDINGS else self._overload
        await overload.answer(context_of(scope), send)
