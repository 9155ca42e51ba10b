"""The page Try it: its form, and the answer beneath it."""

from __future__ import annotations

from dataclasses import asdict, replace
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from service.console.forms import read_form
from service.console.guard import Guard, Visitor
from service.console.pages import Pages
from service.console.snippets import snippets
from service.console.some_users import some_users
from service.console.trial import MOST_CANDIDATES, Answer, Asked, Trial, loaded
from service.context import context_of
from service.errors import ServiceError
from service.state import ServiceState


class TryPage:
    """Shows the form; scores what was asked. Where the console reads only, it scores, too."""

    def __init__(self, state: ServiceState, pages: Pages, guard: Guard) -> None:
        self._state, self._pages, self._guard = state, pages, guard
        self._trial = Trial(state)

    async def form(self, request: Request, visitor: Visitor) -> Response:
        """Show the form, filled with what the address says."""
        return await self._page(visitor, Asked.of(request.query_params))

    async def answer(self, request: Request) -> Response:
        """Score, and show scores or what is wrong with the request."""
        visitor, form = self._guard.visitor(request), await read_form(request)
        self._guard.check_csrf(visitor, form.get("csrf", ""))
        asked = Asked.of(form)
        try:
            answer = await self._trial.answer(asked)
        except ServiceError as error:
            context_of(request.scope).problem = error.slug
            return await self._page(visitor, asked, fault=error.detail, status=error.status)
        return await self._page(visitor, asked, answer)

    async def _page(
        self,
        visitor: Visitor,
        asked: Asked,
        answer: Answer | None = None,
        fault: str | None = None,
        status: int = 200,
    ) -> Response:
        state, mapped = self._state, self._trial.is_mapped
        active = state.registry.active
        features = active.schema.request if active is not None else ()
        example = ", ".join(f'"{feature.name}": 1' for feature in features)
        users = await some_users(state.store)
        return self._pages.page(
            "try",
            visitor,
            status,
            asked=asked,
            opened=asked.is_open,
            users=users,
            links={user: urlencode(asdict(replace(asked, user_id=user))) for user in users},
            answer=answer,
            fault=fault,
            mapped=mapped,
            most=MOST_CANDIDATES,
            versions=loaded(state.registry),
            example=f"{{{example}}}",
            snippets=snippets(state.settings, answer.request, answer.schema, mapped=mapped)
            if answer
            else {},
        )
