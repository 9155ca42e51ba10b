"""Inference, transport-free: a model lease, an admission permit, the scoring pipeline.

Every protocol's handler calls ``infer``. What follows an answer is ``_after``: the middleware calls
it once the answer has been sent.
"""

from __future__ import annotations

from functools import partial

from feature_store.contract import CORRUPT, FOUND, MISSING
from service.admission.admission import Permit
from service.admission.loop_budget import REFUSAL_S
from service.api.inline_content import InlineContent
from service.api.inline_request import InlineRequest
from service.api.item_text import ItemTexts
from service.context import Priority, RequestContext
from service.errors import DeadlinePassed, OverCapacity
from service.models.loaded_model import LoadedModel
from service.observability.version_stats import VersionStats
from service.scoring.feature_tensors import placed
from service.scoring.query import ScoreQuery
from service.scoring.result import ScoreResult
from service.server.disconnect import CancelOnDisconnect
from service.state import ServiceState

EXPLAIN, LONG = "explain", "long"  # kinds of the loop's budget
PARSED_S = 0.1e-6  # a candidate


async def infer(
    state: ServiceState,
    ctx: RequestContext,
    query: ScoreQuery,
    asked: str | None,
    deadline: float,
    inline: InlineRequest | None = None,
) -> tuple[str, ScoreResult]:
    """Score with the version ``asked`` for, or the one for this user; return its name, too.

    ``deadline`` is on ``perf_counter``. OverCapacity when there is no room, ClientGone when the
    client has disconnected.
    """
    ctx.user_id = query.user_id if query.user_text is None else query.user_text
    ctx.candidates = len(query.candidates)
    lease = state.registry.lease(asked, query.user_id)
    version = lease.version
    ctx.model_version, ctx.role, ctx.stats = version.name, lease.role, version.stats
    explained = query.explained
    if explained > state.engine.chunk:
        ctx.priority = Priority.BATCH
    with lease:
        if inline is not None:
            query = await _with_records(state, ctx, inline, query, version, deadline)
        return version.name, await _admitted(state, ctx, query, version, deadline)


async def _with_records(
    state: ServiceState,
    ctx: RequestContext,
    inline: InlineRequest,
    query: ScoreQuery,
    version: LoadedModel,
    deadline: float,
) -> ScoreQuery:
    """Add the inline candidates' records to the query."""
    schema = state.store.schema
    texts = ItemTexts(state.encoding, schema, state.settings)
    content = InlineContent(state.encoding, version.encoder, schema, texts, state.budget)
    try:
        return await content.with_records(inline, query, ctx, deadline)
    except DeadlinePassed:
        version.stats.expired += ctx.priority is Priority.ONLINE
        raise


async def _admitted(
    state: ServiceState,
    ctx: RequestContext,
    query: ScoreQuery,
    version: LoadedModel,
    deadline: float,
) -> ScoreResult:
    """Score with a version that is leased, if there is room."""
    stats, explained = version.stats, query.explained
    try:
        permit = state.admission.enter(ctx.candidates, deadline, ctx.priority, explained)
    except OverCapacity:
        if explained or ctx.candidates > state.engine.chunk:  # it was costly to read
            cost = REFUSAL_S + ctx.candidates * PARSED_S
            await state.budget.refused(EXPLAIN if explained else LONG, cost)
        raise
    try:
        with permit, CancelOnDisconnect(ctx.connection, permit.defer):
            own = placed(query, version.schema) if query.tensors else query
            if own.features:
                any_name = state.settings.unknown_features == "ignore"
                elsewhere = state.registry.request_features
                own = own.ignoring(version.request_features, elsewhere, any_name)
            result, ranking = await state.scoring.score(own, version, deadline, ctx.timer, permit)
            if ranking.is_shortlisted and query.top_k is not None:
                state.audit.offer(version, ranking, query.top_k)
    except DeadlinePassed:
        stats.expired += permit.priority is Priority.ONLINE
        raise
    ctx.after_answer = partial(_after, state, query, result, permit, stats)
    return result


def _after(
    state: ServiceState, query: ScoreQuery, result: ScoreResult, permit: Permit, stats: VersionStats
) -> None:
    """Learn from an answer that has been sent, count it, and perhaps score it by the shadow."""
    if permit.took is not None and permit.priority is Priority.ONLINE:
        candidates, busy, _ = permit.took
        stats.took(candidates, len(result.history), busy)
    permit.learn()
    metrics = state.metrics
    metrics.candidates.observe(len(result.candidates))
    metrics.scored.inc(result.count(FOUND))
    if result.cold_count:
        metrics.cold_items.inc(result.cold_count)
    if result.lacking_count:
        metrics.items_without_content.inc(result.lacking_count)
    if result.cold_user:
        metrics.cold_users.inc()
    for name in result.ignored:
        kind = "other_version" if name in state.registry.request_features else "unknown"
        metrics.ignored_features.labels(kind).inc()
    for what in result.degraded:
        metrics.degraded.labels(what).inc()
    if not result.complete:
        metrics.unknown.inc(result.count(MISSING))
        metrics.unreadable.inc(result.count(CORRUPT))
        metrics.history_dropped.inc(result.history_dropped)
    state.manager.shapes.note(len(query.candidates), len(result.history))
    state.manager.shadow.offer(query, result)
