"""The way of one request: history -> item vectors -> score -> answer.

Shapes: H history items, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import isfinite

import numpy as np

from feature_store.contract import CORRUPT, FOUND, MISSING, Ids
from service.admission.admission import Permit
from service.admission.charge import Charge
from service.admission.loop_budget import LoopBudget
from service.engine.engine import Engine, Prepare, in_time
from service.errors import StoreFailure
from service.items.fetcher import each_status
from service.items.lookup import ItemLookup, fetch_missed, find_in_table
from service.items.store_client import StoreReader
from service.items.table import Positions, StaleSlots
from service.lifecycle.top_k_audit import TopKAudit
from service.models.registry import LoadedModel
from service.observability.metered import Metered
from service.observability.metrics import Metrics
from service.priority import HasPriority, Priority
from service.scoring.explanation import Explanations
from service.scoring.overflow import culprits
from service.scoring.passes import ScoringRun
from service.scoring.query import ScoreQuery
from service.scoring.ranking import Ranking
from service.scoring.result import ScoreResult, best
from service.scoring.top_k import rank_best
from service.timings import StageTimer

EMPTY = np.empty(0, np.int64)  # a history
OVERFLOW_ROUNDS = 2
FEW_MISSED = 64
ATTEMPTS = 3  # the last one without the table, whose slots nobody can then take away


@dataclass(frozen=True, slots=True)
class ScoringPipeline:
    """What scoring needs of the service. Every step laps the request's timer."""

    store: StoreReader
    engine: Engine
    metrics: Metrics
    rechecks: TopKAudit | None = None
    budget: LoopBudget | None = None

    async def answer(
        self,
        query: ScoreQuery,
        version: LoadedModel,
        deadline: float,
        timer: StageTimer,
        permit: Permit | None = None,
    ) -> ScoreResult:
        """Answer with this version, before ``deadline`` (``perf_counter``) or not at all.

        A ``permit`` says in which class, and is told what it took.
        """
        given = query.checked_history(version.schema)
        overrides = query.overrides(version.schema)
        timer.lap("parse")
        in_time(deadline)

        stored = given if given is not None else await self.history(query.user_id, version)
        history = EMPTY if stored is None else stored  # (H,)
        timer.lap("store")

        ids = np.concatenate([history, query.candidates])  # (H + C,)
        for attempt in range(ATTEMPTS):
            past_table = attempt == ATTEMPTS - 1
            found, missed = find_in_table(
                ids, version.table, self.store.metrics, past_table=past_table
            )
            timer.lap("table")
            if len(missed):
                found = await self.fetch(ids, found, missed, version, deadline, timer, permit)
                asked = each_status(found.status, len(found))[len(history) :]
                if found.unreached and FOUND not in asked:
                    raise self.store.failure()  # there is nothing to answer from
            try:
                ranking = Ranking(found, len(history), overrides, version.model)
                if not await self.score(ranking, query, version, deadline, timer, permit):
                    found, ranking = await self.score_without_overflow(
                        found, ranking, query, version, deadline, timer, permit
                    )
                explanations = None
                if query.explain is not None:
                    explanations = await self.explain(
                        ranking, query, history, deadline, timer, permit
                    )
                break
            except StaleSlots:
                self.metrics.table_moved.inc()
        answer = ScoreResult(
            query.candidates,
            ranking.scores,
            history,
            found.status,
            found.cold[len(history) :],
            history_lost=stored is None,
            explanations=explanations,
        )
        in_time(deadline)
        return answer

    async def history(self, user_id: int, version: LoadedModel) -> Ids | None:
        """(H,) newest first, H at most the model's own history length; None if it is not to be had
        and the service may answer without."""
        try:
            stored = await self.store.history(user_id)
        except StoreFailure:
            if not self.store.may_do_without:
                raise
            return None
        return EMPTY if stored is None else stored[: version.schema.history_length]

    async def fetch(
        self,
        ids: Ids,
        found: ItemLookup,
        missed: Positions,
        version: LoadedModel,
        deadline: float,
        timer: StageTimer,
        permit: Permit | None = None,
    ) -> ItemLookup:
        """What is not in the table. Where that is much, it is charged to the loop's budget and the
        request goes on at batch priority, so that no other waits for it."""
        if permit:
            permit.derives(len(missed))
        known = (ids, found, missed, version, self.store, self.engine, deadline, timer, permit)
        if self.budget is None or len(missed) <= FEW_MISSED:
            return await fetch_missed(*known)
        if permit:
            permit.defer()
        charge = Charge(self.budget, "missed")
        try:
            await charge.enter(len(missed), deadline)
            fetched: ItemLookup = await Metered(fetch_missed(*known, charge), charge.spent)
            return fetched
        finally:
            charge.leave()

    async def score(
        self,
        ranking: Ranking,
        query: ScoreQuery,
        version: LoadedModel,
        deadline: float,
        timer: StageTimer,
        permit: Permit | None = None,
    ) -> bool:
        """Every known candidate; with ``top_k``, those that may be among the k best at least.

        False when some score is not a number.
        """
        known = len(ranking.known)
        if not known:
            return True
        priority: HasPriority = permit or Priority.ONLINE
        passes = ScoringRun(self.engine, ranking.read_history, deadline, priority, timer)
        k = query.top_k
        if k is None or version.model.precision == "fp32":
            await passes.run(ranking.rank, known)
        else:
            await rank_best(ranking, k, passes, self.metrics)
        if permit:
            permit.scored(known, passes.work)
        chosen = ranking.known if ranking.scored is None else ranking.known[ranking.scored]
        scores = ranking.scores if len(chosen) == len(ranking.scores) else ranking.scores[chosen]
        if not isfinite(scores.item(scores.argmax())):  # what is not a number comes before all
            return False
        if self.rechecks is not None and k is not None and len(chosen) < known:
            self.rechecks.offer(version, ranking, k)
        return True

    async def score_without_overflow(
        self,
        found: ItemLookup,
        ranking: Ranking,
        query: ScoreQuery,
        version: LoadedModel,
        deadline: float,
        timer: StageTimer,
        permit: Permit | None = None,
    ) -> tuple[ItemLookup, Ranking]:
        """Score again without the items that make scores overflow; they are unreadable.

        Their neighbours' scores are those of a request without them. ModelFault: see ``culprits``.
        """
        history = len(found) - len(query.candidates)
        priority: HasPriority = permit or Priority.ONLINE

        def begin(prepare: Prepare) -> ScoringRun:
            return ScoringRun(self.engine, prepare, deadline, priority, timer)

        for _ in range(OVERFLOW_ROUNDS):
            out = await culprits(ranking, history, begin)
            if not len(out):
                return found, ranking
            found = found.without(out)
            ranking = Ranking(found, history, query.overrides(version.schema), version.model)
            if await self.score(ranking, query, version, deadline, timer, permit):
                return found, ranking
        ranking.scored = None
        await begin(ranking.read_history).run(ranking.rank_exactly, len(ranking.known))
        return found.without(ranking.overflown + history), ranking

    async def explain(
        self,
        ranking: Ranking,
        query: ScoreQuery,
        history: Ids,
        deadline: float,
        timer: StageTimer,
        permit: Permit | None = None,
    ) -> Explanations:
        """For what will be answered."""
        assert query.explain is not None, "asked for"
        scores = ranking.scores
        chosen = best(scores, len(scores) if query.top_k is None else query.top_k)
        told = Explanations(chosen, history[ranking.past], query.explain)
        if len(chosen) and told.top:
            priority: HasPriority = permit or Priority.ONLINE
            rank = partial(ranking.explain, told)
            work = await self.engine.run(rank, len(chosen), deadline, priority=priority)
            if permit:
                permit.explained(len(chosen), work.busy)
            timer.lap("rank")
        return told

    def answered(self, answer: ScoreResult) -> None:
        """Count it, once it has been sent."""
        metrics = self.metrics
        metrics.candidates.observe(len(answer.candidates))
        metrics.scored.inc(answer.count(FOUND))
        if cold := answer.cold_count:
            metrics.cold_items.inc(cold)
        if answer.cold_user:
            metrics.cold_users.inc()
        for what in answer.degraded:
            metrics.degraded.labels(what).inc()
        if not answer.complete:
            metrics.unknown.inc(answer.count(MISSING))
            metrics.unreadable.inc(answer.count(CORRUPT))
            metrics.history_dropped.inc(answer.history_dropped)
