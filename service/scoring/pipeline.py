"""The main path: query -> history -> items -> ranking -> result. Every protocol comes this way.

Shapes: H history items, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import NamedTuple

import numpy as np

from feature_store.contract import CORRUPT, FOUND, STALE, Ids
from model_export.bundle.top_k import best
from model_export.bundle.user_tower import Value
from service.admission.admission import Permit
from service.admission.loop_budget import LoopBudget
from service.admission.loop_charge import Charge
from service.context import StageTimer
from service.engine.engine import Engine, in_time
from service.errors import StoreFailure
from service.items.fetcher import each_status
from service.items.lookup import ItemLookup, fetch_missed, look_up
from service.items.store_client import StoreReader
from service.items.table import StaleSlots
from service.models.loaded_model import LoadedModel
from service.observability.metered import Metered
from service.observability.metrics import Metrics
from service.scoring.explanation import Explanations
from service.scoring.inline_derivation import derive_inline
from service.scoring.overflow import culprits
from service.scoring.query import Overrides, ScoreQuery
from service.scoring.ranking import Ranking, ScoringRun
from service.scoring.result import ScoreResult
from service.scoring.top_k import rank_best
from service.scoring.user_features import UserFeatures

EMPTY = np.empty(0, np.int64)  # a history
OVERFLOW_ROUNDS = 2
FEW_MISSED = 64
UNREADABLE = {CORRUPT: "damaged", STALE: "stale"}  # status of a user's record -> why
ATTEMPTS = 3  # the last one past the table, whose slots might be evicted again


class Scored(NamedTuple):
    """``ranking`` keeps the model in memory; the result does not."""

    result: ScoreResult
    ranking: Ranking


@dataclass(frozen=True, slots=True)
class ScoringPipeline:
    """Scores queries with loaded models; each step laps the request's timer."""

    store: StoreReader
    engine: Engine
    metrics: Metrics
    budget: LoopBudget | None = None

    async def score(
        self,
        query: ScoreQuery,
        version: LoadedModel,
        deadline: float,
        timer: StageTimer,
        permit: Permit | None = None,
    ) -> Scored:
        """Score with this version, before ``deadline`` (``perf_counter``) or not at all.

        A ``permit`` has the priority, and learns what the request took.
        """
        given = query.checked_history(version.schema)
        overrides = query.overrides(version.schema)
        asked: dict[str, Value] | None = None
        if version.has_user or query.features:
            asked = query.request_features(version.schema)
            asked = asked if version.has_user else None  # of a plain version all were left out
        timer.lap("parse")
        in_time(deadline)

        user: UserFeatures | None = None  # for a model with user or request features
        if asked is not None:
            stored, user = await self.read_user(query.user_id, given, asked, version)
        else:
            stored = given if given is not None else await self.read_history(query.user_id, version)
        history = EMPTY if stored is None else stored  # (H,)
        timer.lap("store")

        ids = np.concatenate([history, query.candidates])  # (H + C,)
        run = ScoringRun(self.engine, deadline, timer, permit)
        inline, own = query.inline, 0
        if inline is not None:
            own, given_items = len(inline), await derive_inline(inline, version, run)
        for attempt in range(ATTEMPTS):
            past_table, of_content = attempt == ATTEMPTS - 1, version.model.wanted is not None
            items = look_up(ids, version.table, past_table=past_table, of_content=of_content)
            if inline is not None:
                items = items.giving(inline.places + len(history), given_items)
            self.metrics.table_hits.inc(len(ids) - len(items.missed) - own)
            timer.lap("table")
            if len(items.missed):
                items = await self.fetch(items, len(history), version, run)
            try:
                ranking = await self.rank(items, len(history), overrides, query, version, run, user)
                explained = None
                if query.explain is not None:
                    explained = await self.explain(ranking, query, history, run)
                break
            except StaleSlots:  # evicted meanwhile
                self.metrics.table_moved.inc()
        defaulted: tuple[str, ...] | None = None
        if (user := ranking.user) is not None:
            defaulted = await self._defaulted(user, version, run)
        result = ScoreResult(
            query.candidates,
            ranking.scores,
            history,
            ranking.items.status,
            items.cold[len(history) :],
            lacks=None if items.lacks is None else items.lacks[len(history) :],
            history_lost=stored is None,
            explanations=explained,
            user_lost=user is not None and user.is_lost,
            defaulted=defaulted,
            ignored=query.ignored,
        )
        if query.texts is not None and not result.complete:
            await query.texts.read(history[result.history_status != FOUND])
            timer.lap("store")
        in_time(deadline)
        return Scored(result, ranking)

    async def read_history(self, user_id: int, version: LoadedModel) -> Ids | None:
        """Read at most as many items as the model takes: (H,), newest first.

        None where the store fails and the service may answer without.
        """
        try:
            stored = await self.store.history(user_id)
        except StoreFailure:
            if not self.store.may_do_without:
                raise
            return None
        return EMPTY if stored is None else stored[: version.schema.history_length]

    async def read_user(
        self, user_id: int, given: Ids | None, asked: dict[str, Value], version: LoadedModel
    ) -> tuple[Ids | None, UserFeatures]:
        """Read history and record in one round trip; ``given`` is used instead of the history.

        As ``read_history`` where the store fails, or the history is damaged. A model without user
        features has no record.
        """
        if not version.schema.user:
            stored = given if given is not None else await self.read_history(user_id, version)
            return stored, UserFeatures(None, asked)
        try:
            found = await self.store.user(user_id)
        except StoreFailure:
            if not self.store.may_do_without:
                raise
            return given, UserFeatures(None, asked, is_lost=True)
        history = given
        if history is None and found.history_fault is not None:
            if not self.store.may_do_without:
                raise self.store.failure(found.history_fault)
        elif history is None:
            stored = found.history
            history = EMPTY if stored is None else stored[: version.schema.history_length]
        record = found.row if found.status == FOUND else None
        if found.status in UNREADABLE:
            self.metrics.users_unreadable.labels(UNREADABLE[found.status]).inc()
        return history, UserFeatures(record, asked, is_lost=found.status in UNREADABLE)

    async def _defaulted(
        self, user: UserFeatures, version: LoadedModel, run: ScoringRun
    ) -> tuple[str, ...]:
        """Features that the request was scored without. Of a request without known candidates the
        tower has not run yet."""
        if not user.has_row:
            prepare = partial(user.prepare, version.model)
            await self.engine.run(lambda *_: None, 1, run.deadline, prepare, run.priority)
        return user.row(version.model).defaulted

    async def fetch(
        self, items: ItemLookup, history: int, version: LoadedModel, run: ScoringRun
    ) -> ItemLookup:
        """Fetch what is not in the table. StoreFailure when no candidate is left to score.

        Many misses are charged to the loop's budget, at batch priority: no other request waits for
        them.
        """
        permit, deadline, missed = run.permit, run.deadline, len(items.missed)
        self.metrics.table_misses.inc(missed)
        if permit:
            permit.derives(missed)
        known = (items, version.fetcher, self.store, self.engine, deadline, run.timer, permit)
        if self.budget is None or missed <= FEW_MISSED:
            items = await fetch_missed(*known)
        else:
            if permit:
                permit.defer()
            charge = Charge(self.budget, "missed")
            try:
                await charge.enter(missed, deadline)
                items = await Metered(fetch_missed(*known, charge), charge.spent)
            finally:
                charge.leave()
        if items.unreached and FOUND not in each_status(items.status, len(items))[history:]:
            raise self.store.failure()
        return items

    async def rank(
        self,
        items: ItemLookup,
        history: int,
        overrides: Overrides,
        query: ScoreQuery,
        version: LoadedModel,
        run: ScoringRun,
        user: UserFeatures | None = None,
    ) -> Ranking:
        """Score every known candidate; with ``top_k``, at least those that may be among the best.

        Items that make scores overflow become unreadable, and the others are scored again without
        them; so does a user's record. InvalidField: a number of the request does. ModelFault: see
        ``culprits``.
        """
        ranking = Ranking(items, history, overrides, version.model, user)
        if await self._is_finite(ranking, query.top_k, run):
            return ranking
        if user is not None and user.is_extreme(version.model):
            fewer = Ranking(items, history, overrides, version.model, user.without_record())
            if await self._is_finite(fewer, query.top_k, run):
                return fewer
            fewer = Ranking(items, history, overrides, version.model, user.unknown())
            if await self._is_finite(fewer, query.top_k, run):
                user.refuse_numbers()
        for _ in range(OVERFLOW_ROUNDS):
            out = await culprits(ranking, history, run)
            if not len(out):
                return ranking
            items = items.without(out)
            ranking = Ranking(items, history, overrides, version.model, user)
            if await self._is_finite(ranking, query.top_k, run):
                return ranking
        ranking.scored = None
        await run.begin(ranking.read_history).rank_exactly(ranking)
        ranking.items = items.without(ranking.overflown + history)
        return ranking

    async def _is_finite(self, ranking: Ranking, k: int | None, run: ScoringRun) -> bool:
        """Score ``ranking``; whether each score is a number."""
        known = len(ranking.known)
        if not known:
            return True
        run.begin(ranking.read_history)
        if k is None or ranking.model.reduced == "fp32":
            await run.rank(ranking)
        else:
            await rank_best(ranking, k, run, self.metrics)
        if run.permit:
            run.permit.scored(known, run.job)
        chosen = ranking.known if ranking.scored is None else ranking.known[ranking.scored]
        scores = ranking.scores if len(chosen) == len(ranking.scores) else ranking.scores[chosen]
        return isfinite(scores.item(scores.argmax()))  # what is not a number comes before all

    async def explain(
        self, ranking: Ranking, query: ScoreQuery, history: Ids, run: ScoringRun
    ) -> Explanations:
        """Explain the candidates that will be in the answer."""
        assert query.explain is not None, "asked for"
        scores = ranking.scores
        chosen = best(scores, len(scores) if query.top_k is None else query.top_k)
        if query.texts is not None:
            await query.texts.read(history)
            run.timer.lap("store")
        explained = Explanations(chosen, history[ranking.past], query.explain, query.texts)
        if len(chosen) and explained.top:
            chunk, priority = partial(ranking.explain, explained), run.priority
            job = await self.engine.run(chunk, len(chosen), run.deadline, priority=priority)
            if run.permit:
                run.permit.explained(len(chosen), job.busy)
            run.timer.lap("rank")
        return explained
