"""The way of one request: history -> item vectors -> score -> answer.

Shapes: H history items, C candidates, D item-vector width, X network width, F context features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import CORRUPT, FOUND, MISSING, Ids
from model_export.runtime import Candidates, HistoryRows
from service.admission import Permit
from service.answer import Answer
from service.engine import Engine, in_time
from service.errors import ModelFault, StoreFailure
from service.item_table import DerivedItems, SlotsMoved
from service.items import FoundItems, find_items
from service.metrics import Metrics
from service.priority import Priority
from service.question import Overrides, Question
from service.store import StoreReader
from service.timings import Timings
from service.versions import Version

Floats = NDArray[np.float32]
EMPTY = np.empty(0, np.int64)  # a history
ATTEMPTS = 3  # the last one without the table, whose slots nobody can then take away


@dataclass(frozen=True, slots=True)
class Scoring:
    """What scoring needs of the house. Every step laps the request's timings."""

    store: StoreReader
    engine: Engine
    metrics: Metrics

    async def answer(
        self,
        question: Question,
        version: Version,
        deadline: float,
        timings: Timings,
        permit: Permit | None = None,
    ) -> Answer:
        """Answer with this version, before ``deadline`` (``perf_counter``) or not at all.

        A ``permit`` says in which class, and is told what it took.
        """
        given = question.checked_history(version.schema)
        overrides = question.overrides(version.schema)
        timings.lap("parse")
        in_time(deadline)

        stored = given if given is not None else await self.history(question.user_id, version)
        history = EMPTY if stored is None else stored  # (H,)
        timings.lap("store")

        ids = np.concatenate([history, question.candidates])  # (H + C,)
        for attempt in range(ATTEMPTS):
            past_table = attempt == ATTEMPTS - 1
            found = await find_items(
                ids, version, self.store, self.engine, deadline, timings, past_table=past_table
            )
            if found.unreached and not (found.status[len(history) :] == FOUND).any():
                raise self.store.failure()  # there is nothing to answer from
            try:
                scores = await self.score(
                    found, len(history), overrides, version, deadline, timings, permit
                )  # (C,)
                break
            except SlotsMoved:
                self.metrics.table_moved.inc()
        answer = Answer.of(question.candidates, scores, history, found, history_lost=stored is None)
        in_time(deadline)
        self.count(answer)
        return answer

    async def history(self, user_id: int, version: Version) -> Ids | None:
        """(H,) newest first, H at most the model's own history length; None if it is not to be had
        and the service may answer without."""
        try:
            stored = await self.store.history(user_id)
        except StoreFailure:
            if not self.store.may_do_without:
                raise
            return None
        return EMPTY if stored is None else stored[: version.schema.history_length]

    async def score(
        self,
        found: FoundItems,
        history: int,
        overrides: Overrides,
        version: Version,
        deadline: float,
        timings: Timings,
        permit: Permit | None = None,
    ) -> Floats:
        """(C,) probabilities; NaN where the candidate was not found.

        ``found`` holds ``history`` items of the user, then the candidates.
        """
        past = np.flatnonzero(found.status[:history] == FOUND)  # (≤ H,)
        known = np.flatnonzero(found.status[history:] == FOUND)  # (≤ C,)
        scores = np.full(len(found.status) - history, np.nan, np.float32)  # (C,)
        if not len(known):
            return scores
        model, shared = version.model, list[HistoryRows]()

        def read_history() -> None:
            vectors = found.gather(past).vector  # (≤ H, D)
            shared.append(model.history(vectors))

        def moved(items: DerivedItems, chosen: NDArray[np.int64]) -> Candidates:
            """The chosen candidates in the contexts the request gives them."""
            if not overrides:
                return items
            context = items.context.copy()
            for column, values in overrides:
                context[:, column] = values[chosen]
            return model.in_context(items, context)

        def rank(start: int, end: int) -> None:
            chosen = known[start:end]
            items = found.gather(chosen + history)  # of this chunk: (·, D), (·, X), (·, F)
            scores[chosen] = model.rank(moved(items, chosen), shared[0])

        priority = permit.priority if permit else Priority.ONLINE
        work = await self.engine.run(rank, len(known), deadline, read_history, priority)
        if permit:
            permit.learn(len(known), work)
        timings.lap("queue", work.started)
        timings.lap("history", work.prepared)
        timings.lap("rank", work.finished)
        timings.skip()  # back to the event loop
        if not np.isfinite(scores[known]).all():
            raise ModelFault("the model answered with a score that is not a number")
        return scores

    def count(self, answer: Answer) -> None:
        metrics = self.metrics
        metrics.candidates.observe(len(answer.candidates))
        metrics.scored.inc(answer.count(FOUND))
        metrics.unknown.inc(answer.count(MISSING))
        metrics.unreadable.inc(answer.count(CORRUPT))
        metrics.cold_items.inc(int(answer.cold.sum()))
        metrics.cold_users.inc(answer.cold_user)
        metrics.history_dropped.inc(answer.history_dropped)
        for what in answer.degraded:
            metrics.degraded.labels(what).inc()
