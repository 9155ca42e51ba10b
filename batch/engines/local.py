"""Runs units on worker processes of this machine."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from multiprocessing import connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from batch.engines.engine import ATTEMPTS, FORGOTTEN, START, done_or_why
from batch.errors import BatchError, WorkerFailed
from batch.job import Job
from batch.units import Done, Unit
from batch.worker import Worker
from service.observability.logs import configure

CONTEXT = multiprocessing.get_context("spawn")  # forks of threads do not work
CLOSE_WITHIN_S = 10.0


class LocalEngine:
    """``workers`` processes, started when the first units come."""

    def __init__(self, job: Job, workers: int) -> None:
        self.workers, self._job = workers or len(os.sched_getaffinity(0)), job
        self._pool: dict[Connection, SpawnProcess] = {}
        self._under_way: dict[Connection, Unit] = {}
        self._ends: Counter[Unit | str] = Counter()

    def run(self, units: Iterable[Unit]) -> Iterator[Done]:
        """See ``Engine.run``."""
        waiting = deque(units)
        left = len(waiting)
        while len(self._pool) < min(self.workers, left):
            self._start()
        for line in list(self._pool):
            self._give(line, waiting)
        while left:
            for ready in connection.wait(list(self._pool)):
                assert isinstance(ready, Connection)
                try:
                    answer = ready.recv()
                except (EOFError, OSError):
                    self._replace(ready, waiting)
                    continue
                if isinstance(answer, str):
                    raise BatchError(answer)
                unit = self._under_way.pop(ready)
                assert answer.unit == unit
                left -= 1
                self._give(ready, waiting)
                yield answer

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [process.pid for process in self._pool.values() if process.pid is not None]

    def close(self) -> None:
        """End the workers: those that wait at once, the others by SIGKILL."""
        for line, process in self._pool.items():
            line.close()
            if line in self._under_way:
                process.kill()
        for process in self._pool.values():
            process.join(CLOSE_WITHIN_S)
            if process.is_alive():
                process.kill()
                process.join()
        self._pool.clear()
        self._under_way.clear()

    def _start(self) -> None:
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_serve, args=(theirs, self._job), daemon=True)
        # SIGINT of a terminal goes to all processes: a worker is to see none, also while it starts.
        resource_tracker.ensure_running()  # by itself ``start`` does this, and unblocks SIGINT
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        self._pool[ours] = process

    def _give(self, line: Connection, waiting: deque[Unit]) -> None:
        if not waiting:
            return
        unit = waiting.popleft()
        self._under_way[line] = unit
        try:
            line.send(unit)
        except OSError:  # it has ended: ``recv`` will say so
            return

    def _replace(self, line: Connection, waiting: deque[Unit]) -> None:
        """Start another worker in place of one that has ended. WorkerFailed."""
        process = self._pool.pop(line)
        line.close()
        process.join()
        unit = self._under_way.pop(line, None)
        what: Unit | str = START if unit is None else unit
        self._ends[what] += 1
        if self._ends[what] >= ATTEMPTS:
            why = _ended(process.exitcode)
            raise WorkerFailed(FORGOTTEN.format(what=what, times=ATTEMPTS, why=why))
        if unit is not None:
            waiting.appendleft(unit)
        self._start()
        self._give(next(reversed(self._pool)), waiting)


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return name + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"exit code {code}"


def _serve(line: Connection, job: Job) -> None:
    """Do the units that come on ``line``, until it is closed."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a child"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    configure("auto", "warning")
    worker = Worker(job)
    while True:
        try:
            unit = line.recv()
        except EOFError:
            worker.close()
            return
        line.send(done_or_why(worker, unit))


def _end_with(parent: Any) -> None:
    """End this process when its parent has."""
    connection.wait([parent])
    os._exit(1)
