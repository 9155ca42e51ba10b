"""Supervises background tasks and threads: an error is logged and counted, and loops restart.

    keep           a task whose loop restarts after an error, with a back-off
    begin          a task that runs once
    KeptThread     ``keep`` for a thread; knows whether it serves
    failed, count  for a loop that handles its errors itself
    guard_process  what escapes the others: callbacks, and the threads and tasks of libraries

No other module of ``service`` creates a task or a thread; a test holds that. The counts are the
metric ``qin_background_failures_total``.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from time import monotonic
from typing import Any, Literal, TypeVar, get_args

from service.observability.logs import logger

T = TypeVar("T")
TaskName = Literal[
    "connection",  # accepts a connection
    "console",  # runs a command of a page
    "encoder",  # a thread that encodes texts
    "engine",  # a thread that scores
    "fleet",
    "freshness",  # consumes the change log, refreshes changed items
    "item_fetch",
    "log",  # writes it
    "loop_watch",
    "metrics",  # exports them
    "model_follow",
    "model_guard",
    "model_load",
    "model_retirement",
    "recent",  # keeps figures of each second
    "recheck",
    "serving",  # starts, drains and stops a process
    "shadow",
    "supervisor",
    "other",  # found by ``guard_process``
]
NAMES: tuple[TaskName, ...] = get_args(TaskName)
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 10.0  # before a loop is started again

_counting = threading.Lock()
_failures: dict[TaskName, int] = dict.fromkeys(NAMES, 0)
_running: set[asyncio.Task[Any]] = set()  # the event loop itself refers to tasks weakly


def failures() -> dict[TaskName, int]:
    """Failures of this process by task, zeros included."""
    return dict(_failures)


def count(name: TaskName) -> None:
    """Count a failure that is logged otherwise, or has been."""
    with _counting:
        _failures[name] += 1


def failed(
    name: TaskName, message: str, error: BaseException | None = None, **fields: object
) -> None:
    """Log and count a failure; without ``error``, the one being handled."""
    count(name)
    logger.error(message, task=name, exc_info=error or True, **fields)


def begin(
    name: TaskName, work: Coroutine[Any, Any, T], *, expected: tuple[type[BaseException], ...] = ()
) -> asyncio.Task[T]:
    """Run ``work`` as a task. A failure is logged and counted, whether or not it is awaited.
    ``expected``: errors that are answers, not failures."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    _running.add(task)
    task.add_done_callback(partial(_ended, name, expected))
    return task


def begin_request(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, None],
    running: set[asyncio.Task[None]],
) -> None:
    """Run one request, which handles its errors itself; in ``running`` until its end. Cheaper than
    ``begin``."""
    task = loop.create_task(work)
    running.add(task)
    task.add_done_callback(running.discard)


def keep(
    name: TaskName,
    loop: Callable[[], Coroutine[Any, Any, None]],
    *,
    expected: tuple[type[Exception], ...] = (),
) -> asyncio.Task[None]:
    """Run ``loop()`` as a task until it returns or is cancelled, again after each error.

    ``expected``: errors that end it, for its awaiter.
    """
    return begin(name, _kept(name, loop, expected), expected=expected)


async def _kept(
    name: TaskName,
    loop: Callable[[], Coroutine[Any, Any, None]],
    expected: tuple[type[Exception], ...],
) -> None:
    back_off, task = _BackOff(), asyncio.current_task()
    while True:
        back_off.begin()
        try:
            await loop()
            return
        except asyncio.CancelledError:
            if task is None or task.cancelling():
                raise
            # Cancelled was not this task but something that it awaited.
            failed(name, "background task interrupted", restart_in_s=back_off.next_s())
        except expected:
            raise
        except Exception:
            failed(name, "background task failed", restart_in_s=back_off.next_s())
        await asyncio.sleep(back_off.wait_s)


def _ended(
    name: TaskName, expected: tuple[type[BaseException], ...], task: asyncio.Task[Any]
) -> None:
    _running.discard(task)
    if task.cancelled():
        if not task.cancelling():
            failed(name, "background task interrupted", asyncio.CancelledError())
        return
    error = task.exception()
    if error is not None and not isinstance(error, expected):
        failed(name, "background task failed", error)


class KeptThread:
    """A daemon thread that runs ``work`` until that returns, again after each error."""

    def __init__(self, name: TaskName, work: Callable[[], None], number: int = 0) -> None:
        self.serves = True  # False: in a back-off, or ended
        self._name: TaskName = name
        self._work, self._stop = work, threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"{name}-{number}", daemon=True)
        self._thread.start()

    def join(self, within_s: float | None = None) -> None:
        """Wait for ``work`` to return; do not restart it."""
        self._stop.set()
        self._thread.join(within_s)

    def _keep(self) -> None:
        back_off = _BackOff()
        while not self._stop.wait(back_off.wait_s):
            self.serves = True
            back_off.begin()
            try:
                self._work()
                break
            except BaseException:  # also SystemExit: a graph must not end the process
                self.serves = False
                failed(self._name, "background thread failed", restart_in_s=back_off.next_s())
        self.serves = False


class _BackOff:
    """Doubles while restarts fail soon; starts over after one that lasted."""

    def __init__(self) -> None:
        self.wait_s, self._began = 0.0, 0.0

    def begin(self) -> None:
        self._began = monotonic()

    def next_s(self) -> float:
        lasted = monotonic() - self._began > LONGEST_WAIT_S
        self.wait_s = (
            FIRST_WAIT_S if lasted else min(max(2 * self.wait_s, FIRST_WAIT_S), LONGEST_WAIT_S)
        )
        return self.wait_s


def guard_process(loop: asyncio.AbstractEventLoop) -> None:
    """Log and count what nothing else catches, on this event loop and in every thread."""
    loop.set_exception_handler(_stray_of_loop)
    threading.excepthook = _stray_of_thread


def _stray_of_loop(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    if isinstance(error, Exception):
        failed("other", context["message"], error)
    else:  # a warning of the loop itself, for example about an unclosed resource
        logger.error(context["message"], task="other")


def _stray_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is SystemExit or sys.is_finalizing():
        return
    name = ended.thread.name if ended.thread else None
    failed("other", "thread ended by an error", ended.exc_value, thread=name)
