"""The seam between a run and the processes that do its work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from batch.units import Done, Unit

ATTEMPTS = 3  # of a unit whose worker ends
FORGOTTEN = "{what} ended its worker {times} times: {why}"


class Engine(Protocol):
    """Does units with ``batch.worker.Worker``, on one process or many."""

    workers: int

    def run(self, units: Iterable[Unit]) -> Iterator[Done]:
        """Do every unit, in any order, and yield each that is done. A worker that ends is replaced,
        and its unit done again.

        WorkerFailed if a unit ends its workers ``ATTEMPTS`` times; BatchError if one cannot be
        done.
        """

    def close(self) -> None:
        """End the workers."""
