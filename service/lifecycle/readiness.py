"""Tracks whether the service can take traffic, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np

from model_export.bundle.vectors import HistoryRows
from service.engine.engine import Engine
from service.errors import DeadlinePassed
from service.models.loaded_model import LoadedModel

FIRST_SCORE_WITHIN_S = 60.0  # on a busy machine


@dataclass(slots=True)
class Readiness:
    """Ready means: bundle verified against its golden answers, table filled, graphs warmed up."""

    step: str = "starting"
    done: int = 0  # items, while the table is being filled
    total: int = 0
    ready: bool = False
    draining: bool = False  # still answering, until load balancers have noticed

    @property
    def waiting_for(self) -> str:
        return f"{self.step}: {self.done:,} of {self.total:,}" if self.total else self.step

    def enter(self, step: str, total: int = 0) -> None:
        self.step, self.done, self.total = step, 0, total


async def prove(engine: Engine, version: LoadedModel) -> None:
    """Score once through all threads of the engine. TimeoutError after a minute."""
    rows: list[HistoryRows] = []
    candidates = engine.threads * engine.chunk

    def read_history() -> None:
        rows.append(
            version.model.history(version.table.columns.gather(np.zeros(1, np.int64)).vector)
        )

    def rank(start: int, end: int) -> None:
        asked = version.table.columns.gather(np.zeros(end - start, np.int64))
        version.model.rank(asked, rows[0])

    try:
        await engine.run(rank, candidates, perf_counter() + FIRST_SCORE_WITHIN_S, read_history)
    except DeadlinePassed:
        waits = engine.waiting_for or "its threads are busy"
        raise TimeoutError(f"no first score within {FIRST_SCORE_WITHIN_S:g} s: {waits}") from None
    engine.begin_counts()
