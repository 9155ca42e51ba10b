"""The HTTP servers of a process, for the public and the admin port, under the same limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from email.utils import formatdate

from service.observability.background import begin
from service.observability.logs import logger
from service.observability.memory import trim
from service.observability.metrics import Metrics
from service.server.connections import SWEEP_EVERY_S, ConnectionLimits, ConnectionTracker
from service.server.context import Application, ServerContext
from service.server.descriptors import connections_allowed
from service.server.lingering import Discarding
from service.server.listener import poll_until
from service.server.protocol import HttpProtocol
from service.server.resets import Resets
from service.settings import Settings

SETTLE_S = 0.05  # for bytes that have arrived but are not read yet


class HttpServer:
    """Serves an application on accepted connections."""

    def __init__(
        self,
        application: Application,
        settings: Settings,
        metrics: Metrics,
        on_leave: Callable[[], None] = lambda: None,
        on_enter: Callable[[], object] = lambda: None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.tracker = ConnectionTracker(ConnectionLimits.of(settings), metrics, on_leave)
        self.context = ServerContext(
            application, self.tracker, loop, Resets(loop), Discarding(loop)
        )
        self._on_enter = on_enter
        self._entering: set[asyncio.Task[None]] = set()
        for state in self.tracker.states:
            gauge = metrics.connections.labels(application.name, state.name)
            gauge.set_function(lambda members=state.members: float(len(members)))  # type: ignore[misc]

    def enter(self, accepted: socket.socket) -> None:
        """Serve a new connection; ``accepted`` is non-blocking, and owned from now on."""
        self._on_enter()
        task = begin("connection", self._enter(accepted))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _enter(self, accepted: socket.socket) -> None:
        context = self.context
        try:
            await context.loop.connect_accepted_socket(lambda: HttpProtocol(context), accepted)
        except OSError as error:  # closed already
            logger.debug("a connection was closed at once", reason=str(error))
            accepted.close()

    def close_after_answers(self) -> None:
        """Close each connection after its next answer."""
        self.tracker.draining = True
        for state in self.tracker.states:
            for connection in state.members:
                connection.close_after_answer()

    async def finish(self) -> None:
        """Close idle connections; wait for the others, which the limits of their states end."""
        await asyncio.sleep(SETTLE_S)
        for connection in list(self.tracker.idle.members):
            connection.expire()
        await poll_until(lambda: not self._entering and not len(self.tracker))

    def abort(self) -> int:
        """Close all connections. Returns the number of requests that this ends."""
        tasks = list(self.context.tasks)
        for state in self.tracker.states:
            for connection in list(state.members):
                connection.abort()
        for task in tasks:
            task.cancel()
        self.context.resets.close()
        return len(tasks)


class HttpServers:
    """The public and the admin server, swept together."""

    def __init__(
        self,
        service: Application,
        admin: Application,
        settings: Settings,
        metrics: Metrics,
        on_leave: Callable[[], None] = lambda: None,
    ) -> None:
        """``on_leave``: called when a connection of the public port has ended."""
        self._most = connections_allowed()
        keep = self._keep_within_descriptors
        self.service = HttpServer(service, settings, metrics, on_leave, keep)
        self.admin = HttpServer(admin, settings, metrics, on_enter=keep)
        self._both = (self.service, self.admin)
        self._loop = asyncio.get_running_loop()
        self._sweep()
        self._set_date()

    def make_room(self) -> bool:
        """Close a connection in favour of a new one; False if none can be closed."""
        return any(server.tracker.make_room() for server in self._both)

    def _keep_within_descriptors(self) -> None:
        if len(self.service.tracker) + len(self.admin.tracker) >= self._most:
            self.make_room()

    def close_after_answers(self) -> None:
        for server in self._both:
            server.close_after_answers()

    async def finish(self) -> None:
        await asyncio.gather(*(server.finish() for server in self._both))

    def close(self) -> None:
        """Close all remaining connections."""
        self._timer.cancel()
        self._date_timer.cancel()
        aborted = sum(server.abort() for server in self._both)
        if aborted:
            logger.error("requests aborted after the grace period", requests=aborted)

    def _sweep(self) -> None:
        again = SWEEP_EVERY_S
        try:
            again = min(server.tracker.sweep() for server in self._both)
            if any(server.tracker.burst_is_over() for server in self._both):
                begin("connection", asyncio.to_thread(trim))
        finally:  # an error with one connection does not end the limits of the others
            self._timer = self._loop.call_later(again, self._sweep)

    def _set_date(self) -> None:
        """Refresh the Date header, every second."""
        self._date_timer = self._loop.call_later(1.0, self._set_date)
        date = [(b"date", formatdate(usegmt=True).encode())]
        for server in self._both:
            server.context.default_headers = date
