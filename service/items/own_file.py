"""An item table in an anonymous file (memfd) of one process.

A child process that is given the descriptor can fill it. It is in memory, on no disk, and is freed
when the last process that has it open ends, also by a kill.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from feature_store.schema import FeatureSchema
from service.items.table_layout import SLOTS, TableMemory, size_of

# A child that cut the file short would end this process when it reads what is gone.
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class OwnFile:
    """An empty table of ``capacity`` items. Its memory is taken when rows are written."""

    others = None  # no process writes to it but the one that fills it, and this one afterwards
    filled: bool = False

    def __init__(self, schema: FeatureSchema, capacity: int) -> None:
        self.capacity, slots = capacity, max(capacity, 1)
        size = size_of(schema, slots)
        self._data = os.memfd_create("item-table", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        weakref.finalize(self, os.close, self._data)
        os.ftruncate(self._data, size)
        fcntl.fcntl(self._data, fcntl.F_ADD_SEALS, SEALS)
        self.memory = TableMemory.within(mmap.mmap(self._data, size), schema, slots)
        self.memory.header[SLOTS] = slots
        self.memory.begin()

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The file, first, and what else a process that fills it is to keep open."""
        return (self._data,)

    @contextmanager
    def filling(self) -> Iterator[bool]:
        yield not self.filled

    def fill_is_done(self) -> None:
        self.filled = True
