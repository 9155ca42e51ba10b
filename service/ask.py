"""Where every wire format's way to the model begins: one version is chosen, and it answers."""

from __future__ import annotations

from starlette.requests import Request

from service.answer import Answer
from service.exchange import exchange_of
from service.house import House
from service.question import Question


async def ask(
    house: House, request: Request, question: Question, asked: str | None, deadline: float
) -> tuple[str, Answer]:
    """The version ``asked`` for, or whichever answers this user; and its answer.

    ``deadline`` is on ``perf_counter``.
    """
    exchange = exchange_of(request)
    exchange.user_id, exchange.candidates = question.user_id, len(question.candidates)
    lease = house.versions.lease(asked, question.user_id)
    exchange.model_version, exchange.role = lease.version.name, lease.role
    with lease as version:
        return version.name, await house.scoring.answer(
            question, version, deadline, exchange.timings
        )
