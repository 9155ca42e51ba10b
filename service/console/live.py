"""Pushes the figures of each second to every open page Now, as server-sent events.

One message is made a second, whatever the number of pages, and none while no page is open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from service.console import figures
from service.context import RequestContext, context_of
from service.errors import OverCapacity
from service.observability.recent_traffic import OUTCOMES, PLACE
from service.state import ServiceState

HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx passes each event on at once
    (b"x-content-type-options", b"nosniff"),
]
RETRY = b"retry: 1000\n\n"  # milliseconds
OVER = b"event: over\ndata: the session has ended\n\n"


class Live:
    """The messages of this process's pages."""

    def __init__(self, state: ServiceState) -> None:
        self._state = state
        self.open: set[View] = set()
        self._hour: tuple[int, dict[str, Any]] = (0, {})
        state.recent.on_second.append(self._publish)

    def series(self, minutes: int) -> dict[str, Any]:
        """Make the points of the graphs, and what is marked on their time axis."""
        recent, last = self._state.recent, self._state.recent.last
        whole = figures.summed(figures.parts(recent, last, figures.rows_of(minutes)))
        marks = [asdict(mark) for mark in recent.marks.marks]
        target_ms = self._state.settings.target_ms
        return {**figures.series(whole, last, minutes), "marks": marks, "target": target_ms}

    def _publish(self, second: int) -> None:
        if not self.open:
            return
        message = b"data: " + orjson.dumps(self.frame(second)) + b"\n\n"
        for view in self.open:
            view.tell(message)

    def frame(self, second: int | None = None) -> dict[str, Any]:
        """Make what a page shows of a second, by default the last one, and of those before it."""
        state = self._state
        second = state.recent.last if second is None else second
        found = figures.parts(state.recent, second, figures.rows_of(figures.MINUTES[-2]))
        whole, each = figures.summed(found), figures.processes(found)
        windows = {str(m): figures.window(whole, 60 * m) for m in figures.MINUTES[:-1]}
        windows[str(figures.MINUTES[-1])] = self._longest(second)
        smooth = figures.window(whole, figures.SMOOTH_S)
        point = {n: float(whole.rows[-1][PLACE[n]]) for n in OUTCOMES}
        point |= {"p50": smooth["p50"], "p99": smooth["p99"]}
        return {
            "t": second,
            "point": point,
            "windows": windows,
            "all": figures.whole(each),
            "processes": each,
            "roles": state.manager.catalog.marks(),
            "marks": len(state.recent.marks.marks),
            "revision": self._revision(),
            "draining": state.readiness.draining,
        }

    def _longest(self, second: int) -> dict[str, Any]:
        """The window of the hour, made anew every few seconds: it is most of what a frame costs."""
        at, found = self._hour
        if not at <= second < at + figures.SMOOTH_S:
            whole = figures.summed(figures.parts(self._state.recent, second))
            self._hour = second, (found := figures.window(whole, 60 * figures.MINUTES[-1]))
        return found

    def _revision(self) -> int:
        """A number that changes when a version or a role does."""
        catalog = self._state.manager.catalog
        entries = catalog.entries.values()
        shown = tuple((e.name, e.state, e.step, e.reason) for e in entries)
        previous = catalog.previous and catalog.previous.version
        return hash((shown, tuple(catalog.marks().values()), previous)) & 0xFFFFFFFF

    def stream(self, is_over: Callable[[], bool]) -> Stream:
        """Make the answer to a page; ``is_over``: whether its session has ended."""
        return Stream(self.open, is_over)


class View:
    """One open page, as its answer sees it."""

    def __init__(self) -> None:
        self.message, self.ended, self.woken = b"", False, asyncio.Event()

    def tell(self, message: bytes) -> None:
        """Send this next; a slow page misses those between."""
        self.message = message
        self.woken.set()

    def end(self) -> None:
        self.ended = True
        self.woken.set()


class Stream:
    """ASGI application: messages until the page leaves, the session ends or the service stops."""

    def __init__(self, open_views: set[View], is_over: Callable[[], bool]) -> None:
        self._open, self._is_over = open_views, is_over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        view = View()
        _begin(context_of(scope), view)
        self._open.add(view)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            await send({"type": "http.response.body", "body": RETRY, "more_body": True})
            while scope["method"] != "HEAD":
                await view.woken.wait()
                view.woken.clear()
                if view.ended:
                    break
                over = self._is_over()
                body = OVER if over else view.message
                await send({"type": "http.response.body", "body": body, "more_body": True})
                if over:
                    break
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._open.discard(view)


def _begin(ctx: RequestContext, view: View) -> None:
    """Count the connection among the streams. OverCapacity if there are too many."""
    if ctx.connection is None:  # another server
        return
    if not ctx.connection.stream(view.end):
        raise OverCapacity("too many live views of the console", headers={"Retry-After": "5"})
    ctx.connection.watch(view.end)
