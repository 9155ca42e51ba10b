"""Where every wire format's way to the model begins: a permit, one version, and its answer."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request

from service.admission.loop_budget import REFUSAL_S
from service.api.middleware import context_of
from service.application import ServiceState
from service.errors import DeadlinePassed, OverCapacity
from service.priority import Priority
from service.scoring.query import ScoreQuery
from service.scoring.result import ScoreResult
from service.server.disconnect import WhileThere
from service.server.peer import peer_of

EXPLAIN, LONG = "explain", "long"  # kinds of the loop's budget
PARSED_S = 0.1e-6  # a candidate


async def ask(
    state: ServiceState, request: Request, query: ScoreQuery, asked: str | None, deadline: float
) -> tuple[str, ScoreResult]:
    """The version ``asked`` for, or whichever answers this user; and its answer.

    ``deadline`` is on ``perf_counter``; the class is the context's ``priority``. OverCapacity when
    there is no room, ClientGone when nobody waits any more.
    """
    ctx = context_of(request)
    ctx.user_id, ctx.candidates = query.user_id, len(query.candidates)
    lease = state.registry.lease(asked, query.user_id)
    ctx.model_version, ctx.role = lease.version.name, lease.role
    ctx.stats = lease.version.stats
    explained = query.explained
    if explained > state.engine.chunk:  # beyond a person's curiosity
        ctx.priority = Priority.BATCH
    try:
        permit = state.admission.enter(ctx.candidates, deadline, ctx.priority, explained)
    except OverCapacity:
        if explained or ctx.candidates > state.engine.chunk:  # it was costly to read
            cost = REFUSAL_S + ctx.candidates * PARSED_S
            await state.budget.refused(EXPLAIN if explained else LONG, cost)
        raise
    stats = lease.version.stats
    try:
        with permit, lease as version, WhileThere(peer_of(request.scope), permit.defer):
            answer = await state.scoring.answer(query, version, deadline, ctx.timer, permit)
    except DeadlinePassed:
        stats.expired += permit.priority is Priority.ONLINE
        raise
    ctx.afterwards = partial(state.answered, query, answer, permit, stats)
    return version.name, answer
