"""A worker process. Its connections come from the supervisor."""

from __future__ import annotations

import asyncio
import socket

from service.observability.background import begin
from service.observability.exporter import Worker
from service.processes.channel import Channel, MessageType, WorkerArgs
from service.processes.run import Example, serve_from
from service.processes.signals import ShutdownSignals
from service.server.http_server import HttpServers
from service.settings import Settings

SEND_AGAIN_S = 0.01


class HandoffSource:
    """Connections handed over by the supervisor."""

    def __init__(self, args: WorkerArgs) -> None:
        self.url, self.admin_url = args.url, args.admin_url
        self.stop_requested, self._last = asyncio.Event(), asyncio.Event()
        self._channel = Channel(socket.socket(fileno=args.channel))
        self._counts = {MessageType.ACCEPTED: 0, MessageType.CLOSED: 0}
        self._closed = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._channel.end, self._receive)  # pings precede connections

    def open(self, servers: HttpServers) -> None:
        self._servers = servers
        self._signals = ShutdownSignals()
        self._stopping = begin("serving", self._stop_on_signal())
        self._send(MessageType.ACCEPTING)

    def ready(self) -> None:
        self._send(MessageType.READY)

    def closed(self) -> None:
        self._count(MessageType.CLOSED, self._counts[MessageType.CLOSED] + 1)

    async def close(self) -> None:
        await self._last.wait()

    async def _stop_on_signal(self) -> None:
        """A signal to this worker alone: the supervisor starts another."""
        await self._signals.requested.wait()
        self._send(MessageType.STOPPING)
        self.stop_requested.set()

    def _receive(self) -> None:
        while True:
            try:
                message = self._channel.receive()
            except BlockingIOError:
                return
            if message is None:  # the supervisor has ended
                self._closed = True
                self._loop.remove_reader(self._channel.end)
                self.stop_requested.set()
                self._last.set()
                return
            self._handle(*message)

    def _handle(self, kind: MessageType, number: int, connection: socket.socket | None) -> None:
        if connection is not None:
            self._count(MessageType.ACCEPTED, number)
            public = kind is MessageType.SERVICE
            (self._servers.service if public else self._servers.admin).enter(connection)
        elif kind in (MessageType.SERVICE, MessageType.ADMIN):  # lost: no free descriptor
            self._send(MessageType.RETURNED, number)
            self._servers.make_room()
        elif kind is MessageType.PING:
            self._send(MessageType.PONG)
        elif kind is MessageType.DRAIN:
            self.stop_requested.set()
        elif kind is MessageType.LAST:
            self._last.set()

    def _send(self, kind: MessageType, number: int = 0) -> None:
        """Retry until the supervisor, which may be stopped, has room for it."""
        if not self._channel.send(kind, number) and not self._closed:
            self._loop.call_later(SEND_AGAIN_S, self._send, kind, number)

    def _count(self, kind: MessageType, count: int) -> None:
        self._counts[kind] = count
        self._send_count(kind)

    def _send_count(self, kind: MessageType) -> None:
        if not self._channel.send(kind, self._counts[kind]) and not self._closed:
            self._loop.call_later(SEND_AGAIN_S, self._send_count, kind)


async def work(args: WorkerArgs, settings: Settings, example: Example) -> None:
    worker = Worker(args.number, args.folder)
    await serve_from(HandoffSource(args), settings, example if args.example else None, worker)
