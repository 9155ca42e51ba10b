"""Queues the changed items of one version until they are back in its table."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np

from feature_store.contract import Ids

BATCH = 256  # items
MOST_QUEUED = 200_000  # ids; further changed items are fetched by requests


@dataclass(slots=True, eq=False)
class ChangeBacklog:
    """The change log announces a write before it begins and confirms it afterwards.

    An announcement that is not confirmed in time may have been written all the same.
    """

    batches: deque[Ids] = field(default_factory=deque)
    count: int = 0  # of ids in ``batches``
    due: deque[tuple[float, Ids]] = field(default_factory=deque)  # announcements, oldest first
    open: Counter[int] = field(default_factory=Counter)  # unconfirmed announcements by id
    due_in: Counter[int] = field(default_factory=Counter)  # announcements in ``due`` by id

    def add(self, ids: Ids) -> None:
        for start in range(0, len(ids), BATCH):
            self.batches.append(ids[start : start + BATCH])
        self.count += len(ids)
        while self.count > MOST_QUEUED:
            self.count -= len(self.batches.popleft())

    def next(self) -> Ids:
        batch = self.batches.popleft()
        self.count -= len(batch)
        return batch

    def announce(self, ids: Ids, due: float) -> None:
        """Expect one confirmation for each id before ``due``."""
        self.due.append((due, ids))
        self.open.update(ids.tolist())
        self.due_in.update(ids.tolist())
        while sum(len(part) for _, part in self.due) > MOST_QUEUED:
            self._drop(self.due.popleft()[1])

    def confirm(self, ids: Ids) -> None:
        if self.open:
            for item in ids.tolist():
                if self.open.get(item, 0) > 0:
                    self.open[item] -= 1

    def overdue(self, now: float) -> Ids:
        """Take out announcements that are due. Returns the ids that are unconfirmed."""
        found = [np.zeros(0, np.int64)]
        while self.due and self.due[0][0] <= now:
            _, ids = self.due.popleft()
            found.append(ids[[self.open.get(item, 0) > 0 for item in ids.tolist()]])
            self._drop(ids)
        return np.unique(np.concatenate(found))

    def _drop(self, ids: Ids) -> None:
        for item in ids.tolist():
            self.due_in[item] -= 1
            if not self.due_in[item]:
                del self.due_in[item]
                self.open.pop(item, None)
