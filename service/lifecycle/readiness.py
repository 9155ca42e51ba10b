"""Whether the service may be sent traffic, and what it still waits for."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

import numpy as np

from model_export.bundle.vectors import HistoryRows
from service.engine.engine import Engine
from service.errors import DeadlinePassed
from service.models.loaded_model import LoadedModel

PROOF_S = 60.0  # for a first score, on a machine that is busy


@dataclass(slots=True)
class Readiness:
    """Ready means loaded, verified against the bundle's golden answers, filled and warmed."""

    step: str = "starting"
    done: int = 0  # items, while the table is being filled
    total: int = 0
    ready: bool = False
    draining: bool = False  # told to stop; still answering, so that balancers notice first

    @property
    def waiting_for(self) -> str:
        return f"{self.step}: {self.done:,} of {self.total:,}" if self.total else self.step

    def enter(self, step: str, total: int = 0) -> None:
        self.step, self.done, self.total = step, 0, total


async def prove(engine: Engine, version: LoadedModel) -> None:
    """Score once through the engine's threads. TimeoutError when no score comes of it."""
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
        await engine.run(rank, candidates, perf_counter() + PROOF_S, read_history)
    except DeadlinePassed:
        waits = engine.waiting_for or "its threads do not come to it"
        raise TimeoutError(f"no first score within {PROOF_S:g} s: {waits}") from None
    engine.begin_counts()
