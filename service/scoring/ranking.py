"""Scores one request's candidates against its user's history, on engine threads.

Shapes: H history items, C candidates, K ≤ C of them known, L ≤ H of the history known;
D item-vector width, X network width, F context features.
"""

from __future__ import annotations

from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from feature_store.contract import FOUND
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.shortlist import quick_logits
from model_export.bundle.vectors import (
    Candidates,
    Floats,
    HistoryRows,
    ItemVectors,
    Positions,
    UserRow,
)
from service.admission.admission import Permit
from service.context import HasPriority, Priority, StageTimer
from service.engine.engine import Engine, Job, Prepare, Run
from service.items.lookup import ItemLookup
from service.items.table import DerivedItems
from service.scoring.explanation import Explanations
from service.scoring.query import Overrides
from service.scoring.user_features import UserFeatures


class Ranking:
    """``read_history`` first, then any of the others, a chunk [start, end) at a time."""

    def __init__(
        self,
        items: ItemLookup,
        history: int,
        overrides: Overrides,
        model: FoldedModel,
        user: UserFeatures | None = None,
    ) -> None:
        """``items`` holds ``history`` items of the user, then the candidates. ``user``: None for a
        model without user and request features."""
        self.model, self.user = model, user
        self.items, self._history, self._overrides = items, history, overrides
        candidates = len(items) - history
        self.past: Positions  # (L,)
        self.known: Positions  # (K,)
        if items.status is None:
            self.past, self.known = _all(history), _all(candidates)
        else:
            self.past = np.flatnonzero(items.status[:history] == FOUND)
            self.known = np.flatnonzero(items.status[history:] == FOUND)
        self.scores: Floats = np.empty(candidates, np.float32)  # (C,) probabilities
        self.scores.fill(np.nan)
        self.scored: NDArray[np.bool_] | None = None  # (K,) all, or those top-k did not rule out
        if model.reduced != "fp32":  # for top-k: in int8 or bf16, and in float32
            self.logits: Floats = np.empty((2, candidates), np.float32)
        self._rows: HistoryRows | None = None
        self._user_row: UserRow | None = None

    def read_history(self) -> None:
        """Run the history tower, and the user tower if there is one."""
        self._rows = self.model.history(self.past_vectors())
        if self.user is not None:
            self._user_row = self.user.row(self.model)

    def rank(self, start: int, end: int) -> None:
        """Score in the model's own precision."""
        chosen = self.known[start:end]
        self.scores[chosen] = self.model.rank(self._items(chosen), self.rows, self._user_row)

    def rank_exactly(self, start: int, end: int) -> None:
        """Score in float32."""
        chosen = self.known[start:end]
        self.scores[chosen] = self.model.exact(self._items(chosen), self.rows, self._user_row)

    def exactly(self, chosen: Positions, rows: HistoryRows) -> Floats:
        """(·,) float32 probabilities of these candidates, with any history."""
        return self.model.exact(self._items(chosen), rows, self._user_row)

    @property
    def is_shortlisted(self) -> bool:
        """Whether top-k ruled out candidates by their int8 or bf16 scores."""
        return self.scored is not None and not self.scored.all()

    @property
    def overflown(self) -> Positions:
        """Candidates that were scored, and whose score is not a number."""
        chosen = self.known if self.scored is None else self.known[self.scored]
        return chosen[np.isnan(self.scores[chosen])]

    def past_vectors(self) -> Floats:
        """(L, D)"""
        return self.items.gather(self.past).vector

    def vectors(self, chosen: Positions) -> Floats:
        """(·, D) of these candidates."""
        return self.items.gather(chosen + self._history).vector

    def score_reduced(self, start: int, end: int) -> None:
        """int8 or bf16 logits alone, into ``logits[0]``."""
        chosen = self.known[start:end]
        items = self._items(chosen)
        self.logits[0, chosen] = quick_logits(self.model, items, self.rows, self._user_row)

    def rescore(self, chosen: Positions, start: int, end: int) -> None:
        """float32 scores and logits of these candidates."""
        part = chosen[start:end]
        items = self._items(part)
        vectors = ItemVectors(items.vector, items.row, items.context)
        found = self.model.rescore(vectors, self.rows, self._user_row)
        self.scores[part], self.logits[1, part] = found

    def explain(self, into: Explanations, start: int, end: int) -> None:
        chosen = into.candidates[start:end]
        items = self._items(chosen)
        found = self.model.explain(items, self.rows, into.top, into.same, self._user_row)
        into.add(start, end, found)

    def unscored(self) -> Ranking:
        """A ranking of the same candidates, history and user, with nothing scored."""
        other = Ranking(self.items, self._history, self._overrides, self.model, self.user)
        other._rows, other._user_row = self._rows, self._user_row
        return other

    @property
    def rows(self) -> HistoryRows:
        assert self._rows is not None, "read_history comes first"
        return self._rows

    def _items(self, chosen: Positions) -> Candidates:
        """The chosen candidates in the contexts the request gives them: (·, D), (·, X), (·, F)."""
        items: DerivedItems = self.items.gather(chosen + self._history)
        if not self._overrides:
            return items
        context = items.context.copy()
        for column, values in self._overrides:
            context[:, column] = values[chosen]
        return self.model.in_context(items, context)


class ScoringRun:
    """One request's use of the engine: passes over its candidates, on one timer.

    A pass is cut into chunks. The first after ``begin`` is preceded by a preparation.
    """

    __slots__ = ("_engine", "_job", "_prepare", "deadline", "permit", "priority", "timer")

    def __init__(
        self, engine: Engine, deadline: float, timer: StageTimer, permit: Permit | None
    ) -> None:
        self.deadline, self.timer, self.permit = deadline, timer, permit
        self.priority: HasPriority = permit or Priority.ONLINE
        self._engine = engine
        self._prepare: Prepare | None = None
        self._job: Job | None = None

    def begin(self, prepare: Prepare) -> ScoringRun:
        """Start over: ``job`` counts the passes from here on."""
        self._prepare, self._job = prepare, None
        return self

    async def rank(self, ranking: Ranking) -> None:
        """Score all known candidates in the model's own precision. DeadlinePassed."""
        divisible = ranking.model.precision == "fp32" and self._is_divisible(ranking)
        await self.run(ranking.rank, len(ranking.known), divisible=divisible)

    async def rank_exactly(self, ranking: Ranking) -> None:
        """Score all known candidates in float32. DeadlinePassed."""
        divisible = self._is_divisible(ranking)
        await self.run(ranking.rank_exactly, len(ranking.known), divisible=divisible)

    async def rescore(self, ranking: Ranking, chosen: Positions) -> None:
        """Score these candidates in float32, with their logits. DeadlinePassed."""
        divisible = self._is_divisible(ranking)
        await self.run(partial(ranking.rescore, chosen), len(chosen), divisible=divisible)

    def _is_divisible(self, ranking: Ranking) -> bool:
        """Whether to cut a pass in float32 for others: without a permit no request waits."""
        return self.permit is not None and ranking.model.is_batch_invariant

    async def run(self, chunk: Run, rows: int, *, divisible: bool = False) -> None:
        """Call ``chunk(start, end)`` over all rows. DeadlinePassed.

        ``divisible``: see ``Engine.run``.
        """
        prepare, self._prepare = self._prepare, None
        job = await self._engine.run(
            chunk, rows, self.deadline, prepare, self.priority, divisible=divisible
        )
        timer = self.timer
        timer.lap("queue", job.started)
        timer.lap("history", job.prepared)
        timer.lap("rank", job.finished)
        timer.skip()  # back to the event loop
        if self._job is None:
            self._job = job
        else:
            self._job.busy += job.busy
            self._job.finished = job.finished

    async def derive(self, chunk: Run, items: int) -> None:
        """Call ``chunk(start, end)`` over items that are to be derived. DeadlinePassed."""
        if self.permit:
            self.permit.derives(items)
        job = await self._engine.run(chunk, items, self.deadline, priority=self.priority)
        if self.permit:
            self.permit.derived(items, job.busy)
        self.timer.lap("items")

    @property
    def job(self) -> Job:
        """All passes since ``begin`` as one."""
        assert self._job is not None, "no pass was made"
        return self._job


@lru_cache(maxsize=64)
def _all(count: int) -> Positions:
    """0, 1, …: cached, because few lengths are common."""
    positions = np.arange(count)
    positions.flags.writeable = False
    return positions
