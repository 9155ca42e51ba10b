"""The first look at a request: whether there is room for it, before anything is done for it.

Under pressure most requests end here, so this is an ASGI layer outside of routing, and nothing of
the body has been read.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission import Admission
from service.errors import ServiceError
from service.exchange import scoring_route
from service.priority import priority_of
from service.problems import answer_problem


class Gate:
    """ASGI middleware, inside of ``Exchanges``."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app, self._admission = app, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        posted = scope["type"] == "http" and scope["method"] == "POST"
        if posted and (route := scoring_route(scope["path"])):
            exchange = scope["exchange"]
            try:
                exchange.priority = priority_of(exchange.asked_priority)
                self._admission.look(exchange.priority)
            except ServiceError as error:
                exchange.route = route
                response = await answer_problem(Request(scope), error)
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
