"""The seam between a run and the processes that do its work."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator
from typing import Protocol

from batch.units import Done, Unit
from batch.wording import EXPECTED, worded_fault
from batch.worker import Worker

ATTEMPTS = 3  # of a unit whose worker ends
START = "the start of a worker"
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


def done_or_why(worker: Worker, unit: Unit) -> Done | str:
    """Do a unit; or return the line that says why not."""
    try:
        return worker.run(unit)
    except EXPECTED as error:
        return worded_fault(error)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return f"{unit}: {type(error).__name__}: {error}"
