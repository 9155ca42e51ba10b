"""The two ports of a process, public and admin, under the same limits."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from email.utils import formatdate
from typing import cast

from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.server import ServerState

from service.api.admin import create_admin
from service.api.app import create_app, create_refusing
from service.observability.background import begin
from service.observability.logs import logger
from service.observability.memory import trim
from service.server.connections import SWEEP_EVERY_S, Connections, Limits
from service.server.descriptors import connections_allowed
from service.server.discarding import Discarding
from service.server.listener import poll_until
from service.server.protocol import Receiving
from service.server.resets import Resets
from service.state import ServiceState

PUBLIC = "service"
LOOK_AGAIN_S = 0.05  # for bytes that are here and not yet read


class HttpServer:
    """An application and its connections."""

    def __init__(
        self,
        name: str,
        app: ASGIApp,
        state: ServiceState,
        on_leave: Callable[[], None],
        on_enter: Callable[[], object] = lambda: None,
    ) -> None:
        self.name, self.app = name, cast(ASGI3Application, app)
        self.refusing = cast(ASGI3Application, create_refusing(state, public=name == PUBLIC))
        self.loop, self.state = asyncio.get_running_loop(), ServerState()
        self.resets, self.discarding = Resets(self.loop), Discarding(self.loop)
        self.connections = Connections(Limits.of(state.settings), state.metrics, on_leave)
        self._on_enter = on_enter
        self._entering: set[asyncio.Task[None]] = set()
        for crowd in self.connections.crowds:
            gauge = state.metrics.connections.labels(name, crowd.name)
            gauge.set_function(lambda members=crowd.members: float(len(members)))  # type: ignore[misc]

    def enter(self, accepted: socket.socket) -> None:
        """A new connection; ``accepted`` is non-blocking, and ours from now on."""
        self._on_enter()
        task = begin("connection", self._enter(accepted))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _enter(self, accepted: socket.socket) -> None:
        try:
            await self.loop.connect_accepted_socket(lambda: Receiving(self), accepted)
        except OSError as error:  # it is gone already
            logger.debug("a connection that ended at once", reason=str(error))
            accepted.close()

    def say_last(self) -> None:
        """Every answer from now on is the last of its connection."""
        self.connections.draining = True
        for crowd in self.connections.crowds:
            for connection in crowd.members:
                connection.say_last()

    async def finish(self) -> None:
        """Close what is idle; wait for the others, which the limits of their states end."""
        await asyncio.sleep(LOOK_AGAIN_S)
        for connection in list(self.connections.idle.members):
            connection.cut()
        await poll_until(lambda: not self._entering and not len(self.connections))

    def abort(self) -> int:
        """Cut everything. How many requests that costs."""
        under_way = len(self.state.tasks)
        for crowd in self.connections.crowds:
            for connection in list(crowd.members):
                connection.abort()
        for task in list(self.state.tasks):
            task.cancel()
        self.resets.close()
        return under_way


class HttpServers:
    """Public and admin, swept together."""

    def __init__(self, state: ServiceState, on_leave: Callable[[], None] = lambda: None) -> None:
        """``on_leave``: called when a connection of the public port has ended."""
        self._most = connections_allowed()
        keep = self._keep_within_descriptors
        self.service = HttpServer(PUBLIC, create_app(state), state, on_leave, keep)
        self.admin = HttpServer("admin", create_admin(state), state, lambda: None, keep)
        self._both = (self.service, self.admin)
        self._loop = asyncio.get_running_loop()
        self._sweep()
        self._tell_date()

    def make_room(self) -> bool:
        """Close a connection for the sake of a new one; whether one could be."""
        return any(port.connections.make_room() for port in self._both)

    def _keep_within_descriptors(self) -> None:
        if len(self.service.connections) + len(self.admin.connections) >= self._most:
            self.make_room()

    def say_last(self) -> None:
        for port in self._both:
            port.say_last()

    async def finish(self) -> None:
        await asyncio.gather(*(port.finish() for port in self._both))

    def close(self) -> None:
        """Whatever is still here is cut."""
        self._timer.cancel()
        self._date_timer.cancel()
        cut = sum(port.abort() for port in self._both)
        if cut:
            logger.error("cut at the end of the grace time", requests=cut)

    def _sweep(self) -> None:
        again = SWEEP_EVERY_S
        try:
            again = min(port.connections.sweep() for port in self._both)
            if any(port.connections.burst_is_over() for port in self._both):
                begin("connection", asyncio.to_thread(trim))
        finally:  # whatever one connection does: the others' limits go on
            self._timer = self._loop.call_later(again, self._sweep)

    def _tell_date(self) -> None:
        """To the second, for the Date header."""
        self._date_timer = self._loop.call_later(1.0, self._tell_date)
        date = [(b"date", formatdate(usegmt=True).encode())]
        for port in self._both:
            port.state.default_headers = date
