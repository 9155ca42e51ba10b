"""Writes an LMDB store from one thread with a bounded queue (group commit).

LMDB's write lock is shared between processes and has no timeout: a thread that requests it may be
blocked for as long as another process holds it. So only this thread does. A write whose budget is
over or whose caller was cancelled leaves the queue and is never made. Once the lock is held, all
queued writes are committed in one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, TypeVar

import lmdb

from feature_store.errors import StoreError, StoreUnavailable
from feature_store.lmdb.environment import LmdbEnvironment, Txn, release
from feature_store.lmdb.errors import store_error

T = TypeVar("T")
MOST_WAITING = 512  # writes; one may hold a whole batch of events
MOST_TOGETHER = 256  # writes in one transaction
CLOSING_PATIENCE_S = 2.0  # for another process's lock
LOOK_EVERY_S = 0.02  # poll interval for a write in progress, once its budget is over


class State(Enum):
    WAITING = 1
    WRITING = 2  # the lock is held: its outcome follows soon
    LEFT = 3  # its caller gave up: not to be made


class _Write:
    """A queued change, and the future of its outcome."""

    def __init__(self, change: Callable[[Txn], Any]) -> None:
        self.change = change
        self.state = State.WAITING
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()


class _Failed(Exception):
    """One write's change raised: the transaction is repeated without it."""

    def __init__(self, write: _Write, error: Exception) -> None:
        super().__init__(str(error))
        self.write, self.error = write, error


class LmdbWriter:
    """Owns one reference to ``environment`` and releases it when its thread has ended."""

    def __init__(self, environment: LmdbEnvironment, budget_s: float) -> None:
        self._environment = environment
        self._budget_s = budget_s
        self._outcome_s = max(5.0, 10 * budget_s)  # for a commit that has begun
        self._changed = threading.Condition()
        self._queue: deque[_Write] = deque()
        self._closing = False
        self._thread: threading.Thread | None = None

    async def write(self, change: Callable[[Txn], T]) -> T:
        """Commit ``change`` and return its result. It may be called more than once.

        Raises StoreUnavailable if it did not start within the budget: then nothing is written, now
        or later. ``unknown`` is set on it if a commit in progress exceeded its time.
        """
        write = _Write(change)
        self._enter(write)
        try:
            await asyncio.wait([write.future], timeout=self._budget_s)
            late = write.loop.time() + self._outcome_s
            while not write.future.done():
                if self._leave(write, State.WAITING):
                    raise StoreUnavailable(
                        f"{self._environment.path}: not written within "
                        f"{self._budget_s * 1e3:g} ms: another process holds the write lock, or "
                        "the disk is slow"
                    )
                if write.loop.time() > late and self._leave(write, State.WRITING):
                    raise StoreUnavailable(
                        f"{self._environment.path}: the commit takes more than "
                        f"{self._outcome_s:g} s: it may yet be written",
                        unknown=True,
                    )
                await asyncio.wait([write.future], timeout=LOOK_EVERY_S)
            result: T = write.future.result()
            return result
        finally:
            self._leave(write, State.WAITING)  # after cancellation
            write.future.cancel()  # drops a late outcome

    async def close(self) -> None:
        """End the thread after the queued writes; if blocked, it ends once the lock is free."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is None:
            await asyncio.to_thread(release, self._environment)
        else:
            await asyncio.to_thread(self._thread.join, CLOSING_PATIENCE_S)

    def _enter(self, write: _Write) -> None:
        with self._changed:
            if self._closing:
                raise StoreUnavailable("the store is closed")
            if len(self._queue) >= MOST_WAITING:
                raise StoreUnavailable(
                    f"{self._environment.path}: not written: {MOST_WAITING} writes are waiting"
                )
            self._queue.append(write)
            self._changed.notify()
            if self._thread is None:
                # A daemon thread: another process's lock must not keep this process from exiting.
                self._thread = threading.Thread(target=self._run, name="lmdb-writer", daemon=True)
                self._thread.start()

    def _leave(self, write: _Write, state: State) -> bool:
        """Withdraw the write if it is in ``state``; return whether it was."""
        with self._changed:
            if write.state is not state or write.future.done():
                return False
            write.state = State.LEFT
            with contextlib.suppress(ValueError):
                self._queue.remove(write)
            return True

    def _run(self) -> None:
        while self._wait():
            claimed: list[_Write] = []
            outcomes: list[Any]
            try:
                outcomes = self._commit(claimed)
            except StoreError as error:
                outcomes = [error] * len(claimed)
            except BaseException as error:  # also SystemExit: the thread goes on
                refused = StoreUnavailable(f"{self._environment.path}: not written: {error!r}")
                outcomes = [refused] * len(claimed)
            for write, outcome in zip(claimed, outcomes, strict=True):
                with contextlib.suppress(RuntimeError):  # its event loop is closed
                    write.loop.call_soon_threadsafe(_settle, write.future, outcome)
        release(self._environment)

    def _wait(self) -> bool:
        """Wait for a queued write; False once closed and empty."""
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            return bool(self._queue)

    def _commit(self, claimed: list[_Write]) -> list[Any]:
        """Commit all queued writes; return the outcomes of ``claimed``, in order."""
        failed: dict[_Write, Exception] = {}

        def together(txn: Txn) -> list[Any]:
            self._claim(claimed)
            outcomes: list[Any] = []
            for write in claimed:
                if write in failed:
                    outcomes.append(failed[write])
                    continue
                try:
                    outcomes.append(write.change(txn))
                except lmdb.BadValsizeError as error:  # of this write's key or value
                    raise _Failed(write, store_error(self._environment.path, error)) from error
                except lmdb.Error:
                    raise
                except Exception as error:
                    raise _Failed(write, error) from error
            return outcomes

        while True:
            try:
                return self._environment.write(together)
            except _Failed as one:
                failed[one.write] = one.error
                self._give_back(claimed)
            except StoreError:
                # None was written. If the lock was not obtained, none was claimed: fail the queue.
                if not claimed:
                    self._claim(claimed)
                raise

    def _claim(self, claimed: list[_Write]) -> None:
        """Move queued writes into this transaction; drop those withdrawn since the last try."""
        with self._changed:
            claimed[:] = [write for write in claimed if write.state is not State.LEFT]
            while self._queue and len(claimed) < MOST_TOGETHER:
                claimed.append(self._queue.popleft())
            for write in claimed:
                write.state = State.WRITING

    def _give_back(self, claimed: list[_Write]) -> None:
        """Mark claimed writes as waiting again: the lock has been released."""
        with self._changed:
            for write in claimed:
                if write.state is State.WRITING:
                    write.state = State.WAITING


def _settle(future: asyncio.Future[Any], outcome: Any) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
