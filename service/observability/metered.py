"""Measures the processor time that a coroutine takes of the event loop, without what it awaits."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from time import thread_time
from typing import Any, TypeVar

T = TypeVar("T")


class Metered:
    """``await Metered(coroutine, spent)``: ``spent(seconds)`` is called after each step of it."""

    __slots__ = ("_coroutine", "_spent")

    def __init__(self, coroutine: Coroutine[Any, Any, T], spent: Callable[[float], None]) -> None:
        self._coroutine, self._spent = coroutine, spent

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, error = self._coroutine, None
        while True:
            began = thread_time()
            try:
                awaited = coroutine.send(None) if error is None else coroutine.throw(error)
            except StopIteration as stop:
                return stop.value
            finally:
                error = None  # its traceback holds this frame
                self._spent(thread_time() - began)
            try:
                yield awaited
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as raised:
                error = raised


async def measured(coroutine: Coroutine[Any, Any, T], spent: Callable[[float], None]) -> T:
    """``Metered`` as a coroutine."""
    result: T = await Metered(coroutine, spent)
    return result
