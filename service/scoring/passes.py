"""The passes that one request makes over its candidates, one after another, on one clock."""

from __future__ import annotations

from service.engine.engine import Engine, Prepare, Run, Work
from service.priority import HasPriority
from service.timings import Timings


class Passes:
    """Each is cut into chunks and runs on the engine's threads; the first is prepared for."""

    def __init__(
        self,
        engine: Engine,
        prepare: Prepare,
        deadline: float,
        priority: HasPriority,
        timings: Timings,
    ) -> None:
        self._engine, self._deadline, self._priority = engine, deadline, priority
        self._prepare: Prepare | None = prepare
        self._timings = timings
        self._work: Work | None = None

    async def run(self, chunk: Run, rows: int) -> None:
        """``chunk(start, end)`` over all rows. DeadlinePassed."""
        prepare, self._prepare = self._prepare, None
        work = await self._engine.run(chunk, rows, self._deadline, prepare, self._priority)
        timings = self._timings
        timings.lap("queue", work.started)
        timings.lap("history", work.prepared)
        timings.lap("rank", work.finished)
        timings.skip()  # back to the event loop
        if self._work is None:
            self._work = work
        else:
            self._work.busy += work.busy
            self._work.finished = work.finished

    @property
    def work(self) -> Work:
        """All of them as one."""
        assert self._work is not None, "no pass was made"
        return self._work
