"""Runs graphs on threads of the lowest priority, for threads that have the event loop's.

A thread that the system keeps from a processor for the sake of others keeps the interpreter's lock
meanwhile, if it has it, and so the event loop. Graphs run without that lock, all else with it: only
they are left to threads that yield.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from service.engine.niceness import LOWEST, add_niceness
from service.observability.background import KeptThread

Answer = tuple[Any, BaseException | None]
Work = tuple[Callable[..., Any], tuple[Any, ...], "SimpleQueue[Answer]"]


class GraphThreads:
    """Call it as ``call(function, *arguments)``, from any thread: it waits for the result."""

    def __init__(self, threads: int) -> None:
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._putting, self._is_closed = threading.Lock(), False
        # Numbered after the threads of the engine that encodes.
        self._threads = [KeptThread("encoder", self._serve, threads + n) for n in range(threads)]

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        answer: SimpleQueue[Answer] = SimpleQueue()
        with self._putting:
            is_closed = self._is_closed
            if not is_closed:
                self._work.put((function, arguments, answer))
        if is_closed:
            return function(*arguments)
        result, error = answer.get()
        if error is None:
            return result
        try:
            raise error
        finally:
            del error  # its traceback holds this frame

    def close(self) -> None:
        """End after the calls that wait; later ones are made by their own threads."""
        with self._putting:
            self._is_closed = True
            for _ in self._threads:
                self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        add_niceness(LOWEST)
        while (work := self._work.get()) is not None:
            function, arguments, answer = work
            try:
                found: Answer = function(*arguments), None
            except BaseException as error:  # the caller's, who may be asked again
                found = None, error
            answer.put(found)
            del work, function, arguments, answer, found  # of the last call, while it waits
