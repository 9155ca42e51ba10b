"""Runs units on actors of a Ray cluster, the extra ``ray``.

Every node needs the bundle, the store, the input and the output under the same names, and with rows
the work folder.
"""

from __future__ import annotations

import gc
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from batch.engines.engine import ATTEMPTS, FORGOTTEN, START, done_or_why
from batch.errors import BatchError, WorkerFailed
from batch.job import Job
from batch.node import check_node
from batch.table_place import remove_table, worker_table
from batch.units import Done, Unit
from batch.wording import EXPECTED, worded_fault
from batch.worker import Worker
from service.observability.logs import configure

ABSENT = "--on ray: Ray is not installed; install the extra `ray`, or use --on local"
ADDRESS = "RAY_ADDRESS"
CLOSE_WITHIN_S = 10.0
HERE: dict[str, Any] = {  # of a cluster for this run alone; by itself it listens to the network
    "address": "local",
    "_node_ip_address": "127.0.0.1",
    "include_dashboard": False,
    "object_store_memory": 100 << 20,  # nothing is put there
}


class RayEngine:
    """``workers`` actors of one CPU each, wherever the cluster has room.

    Connects to the cluster at RAY_ADDRESS; without one it starts one on this machine.
    """

    def __init__(self, job: Job, workers: int) -> None:
        try:
            import ray
            from ray.exceptions import RayActorError, RayError
        except ImportError as error:
            raise BatchError(ABSENT) from error
        self._ray, self._died, self._failed = ray, RayActorError, RayError
        self._ours = not ray.is_initialized()
        if self._ours:
            where = {} if os.environ.get(ADDRESS) else HERE
            ray.init(log_to_driver=False, logging_level="error", **where)
        self.workers = workers or int(ray.cluster_resources().get("CPU", 1))
        self._job = job
        self._actor = ray.remote(num_cpus=1, max_restarts=0)(_Actor)
        self._pool: set[Any] = set()
        self._idle: list[Any] = []  # of these, those that have loaded and wait for a unit
        self._under_way: dict[Any, tuple[Any, Unit | None]] = {}  # reference -> actor, unit
        self._ends: Counter[Unit | str] = Counter()

    def run(self, units: Iterable[Unit]) -> Iterator[Done]:
        """See ``Engine.run``. An actor gets units once it runs: one that waits for room in the
        cluster keeps none back."""
        waiting = deque(units)
        left = len(waiting)
        while len(self._pool) < min(self.workers, left):
            self._start()
        while left:
            while self._idle and waiting:
                actor, unit = self._idle.pop(), waiting.popleft()
                self._under_way[actor.run.remote(unit)] = actor, unit
            (reference,), _ = self._ray.wait(list(self._under_way), num_returns=1)
            actor, done = self._under_way.pop(reference)
            try:
                answer = self._ray.get(reference)
            except self._died as error:
                self._replace(actor, done, error)
                if done is not None:
                    waiting.appendleft(done)
                continue
            except self._failed as error:
                raise BatchError(f"{done or START}: {' '.join(str(error).split())}") from None
            if isinstance(answer, str):
                raise BatchError(answer)
            self._idle.append(actor)
            if done is not None:
                left -= 1
                yield answer

    def close(self) -> None:
        """End the actors, and the cluster if it was started here."""
        ends = [actor.end.remote() for actor in self._idle]
        if ends:
            self._ray.wait(ends, num_returns=len(ends), timeout=CLOSE_WITHIN_S)
        for actor in self._pool:
            self._ray.kill(actor)
        self._pool.clear()
        self._idle.clear()
        self._under_way.clear()
        if self._ours:
            self._ray.shutdown()

    def _start(self) -> None:
        actor = self._actor.remote(self._job)
        self._pool.add(actor)
        self._under_way[actor.ready.remote()] = actor, None

    def _replace(self, actor: Any, unit: Unit | None, error: Exception) -> None:
        """Start another actor in place of one that died, its node perhaps with it. WorkerFailed."""
        self._pool.discard(actor)
        what: Unit | str = START if unit is None else unit
        self._ends[what] += 1
        if self._ends[what] >= ATTEMPTS:
            why = " ".join(str(error).split())
            raise WorkerFailed(FORGOTTEN.format(what=what, times=ATTEMPTS, why=why))
        self._start()


class _Actor:
    """A worker in an actor's process."""

    def __init__(self, job: Job) -> None:
        configure("auto", "warning")
        self._job = replace(job, table_folder=worker_table(job.table_folder))
        self._worker: Worker | None = Worker(self._job)

    def ready(self) -> str | None:
        """Return once the actor runs: a line where its machine cannot do the units."""
        try:
            check_node(self._job)
        except EXPECTED as error:
            return worded_fault(error)
        return None

    def run(self, unit: Unit) -> Done | str:
        """Do a unit; or return the line that says why not."""
        assert self._worker is not None, "not ended"
        return done_or_why(self._worker, unit)

    def end(self) -> None:
        """Let go of the table; the last actor of a machine removes it."""
        if self._worker is not None:
            self._worker.close()
        self._worker = None
        gc.collect()
        remove_table(self._job.table_folder)
