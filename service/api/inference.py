"""Where every wire format's way to the model begins: a permit, one version, and its answer."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request

from service.admission.loop_budget import REFUSAL_S
from service.api.middleware import exchange_of
from service.application import House
from service.errors import DeadlinePassed, OverCapacity
from service.priority import Priority
from service.scoring.query import Question
from service.scoring.result import Answer
from service.server.disconnect import WhileThere
from service.server.peer import peer_of

EXPLAIN, LONG = "explain", "long"  # kinds of the loop's budget
PARSED_S = 0.1e-6  # a candidate


async def ask(
    house: House, request: Request, question: Question, asked: str | None, deadline: float
) -> tuple[str, Answer]:
    """The version ``asked`` for, or whichever answers this user; and its answer.

    ``deadline`` is on ``perf_counter``; the class is the exchange's ``priority``. OverCapacity when
    there is no room, ClientGone when nobody waits any more.
    """
    exchange = exchange_of(request)
    exchange.user_id, exchange.candidates = question.user_id, len(question.candidates)
    lease = house.versions.lease(asked, question.user_id)
    exchange.model_version, exchange.role = lease.version.name, lease.role
    exchange.stats = lease.version.stats
    explained = question.explained
    if explained > house.engine.chunk:  # beyond a person's curiosity
        exchange.priority = Priority.BATCH
    try:
        permit = house.admission.enter(exchange.candidates, deadline, exchange.priority, explained)
    except OverCapacity:
        if explained or exchange.candidates > house.engine.chunk:  # it was costly to read
            cost = REFUSAL_S + exchange.candidates * PARSED_S
            await house.budget.refused(EXPLAIN if explained else LONG, cost)
        raise
    stats = lease.version.stats
    try:
        with permit, lease as version, WhileThere(peer_of(request.scope), permit.defer):
            answer = await house.scoring.answer(
                question, version, deadline, exchange.timings, permit
            )
    except DeadlinePassed:
        stats.expired += permit.priority is Priority.ONLINE
        raise
    exchange.afterwards = partial(house.answered, question, answer, permit, stats)
    return version.name, answer
