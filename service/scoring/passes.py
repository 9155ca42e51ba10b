"""The passes that one request makes over its candidates, one after another, on one clock."""

from __future__ import annotations

from service.engine.engine import Engine, Job, Prepare, Run
from service.priority import HasPriority
from service.timings import StageTimer


class ScoringRun:
    """Each is cut into chunks and runs on the engine's threads; the first is prepared for."""

    def __init__(
        self,
        engine: Engine,
        prepare: Prepare,
        deadline: float,
        priority: HasPriority,
        timer: StageTimer,
    ) -> None:
        self._engine, self._deadline, self._priority = engine, deadline, priority
        self._prepare: Prepare | None = prepare
        self._timings = timer
        self._work: Job | None = None

    async def run(self, chunk: Run, rows: int) -> None:
        """``chunk(start, end)`` over all rows. DeadlinePassed."""
        prepare, self._prepare = self._prepare, None
        work = await self._engine.run(chunk, rows, self._deadline, prepare, self._priority)
        timer = self._timings
        timer.lap("queue", work.started)
        timer.lap("history", work.prepared)
        timer.lap("rank", work.finished)
        timer.skip()  # back to the event loop
        if self._work is None:
            self._work = work
        else:
            self._work.busy += work.busy
            self._work.finished = work.finished

    @property
    def work(self) -> Job:
        """All of them as one."""
        assert self._work is not None, "no pass was made"
        return self._work
