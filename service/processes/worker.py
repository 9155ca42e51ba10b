"""One of several processes that answer. Its connections come from the supervisor."""

from __future__ import annotations

import asyncio
import socket

from service.observability.background import begin
from service.observability.exporter import Worker
from service.processes.channel import Line, Post, Word
from service.processes.run import serve_from
from service.processes.signals import StopSignals
from service.server.http_server import Ports
from service.settings import Settings

SAY_AGAIN_S = 0.01


class HandedOver:
    """The entrance of a worker: what the supervisor hands over."""

    def __init__(self, post: Post) -> None:
        self.url, self.told, self._last = post.url, asyncio.Event(), asyncio.Event()
        self._line = Line(socket.socket(fileno=post.line))
        self._counts = {Word.TAKEN: 0, Word.LEFT: 0}
        self._gone = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._line.end, self._hear)  # pings come before connections do

    def open(self, ports: Ports) -> None:
        self._ports = ports
        self._signals = StopSignals()
        self._leaving = begin("serving", self._leave_when_told())
        self._say(Word.OPEN)

    def ready(self) -> None:
        self._say(Word.READY)

    def left(self) -> None:
        self._count(Word.LEFT, self._counts[Word.LEFT] + 1)

    async def close(self) -> None:
        await self._last.wait()

    async def _leave_when_told(self) -> None:
        """A signal to this worker alone: another takes its place."""
        await self._signals.told.wait()
        self._say(Word.LEAVING)
        self.told.set()

    def _hear(self) -> None:
        while True:
            try:
                heard = self._line.hear()
            except BlockingIOError:
                return
            if heard is None:  # the supervisor is gone, and the only one that tells us to stop
                self._gone = True
                self._loop.remove_reader(self._line.end)
                self.told.set()
                self._last.set()
                return
            self._do(*heard)

    def _do(self, word: Word, number: int, connection: socket.socket | None) -> None:
        if connection is not None:
            self._count(Word.TAKEN, number)
            port = self._ports.service if word is Word.SERVICE else self._ports.admin
            port.enter(connection)
        elif word in (Word.SERVICE, Word.ADMIN):  # it was lost for want of a descriptor
            self._say(Word.BACK, number)
            self._ports.make_room()
        elif word is Word.PING:
            self._say(Word.PONG)
        elif word is Word.NOTICE:
            self.told.set()
        elif word is Word.LAST:
            self._last.set()

    def _say(self, word: Word, number: int = 0) -> None:
        """Again and again until the supervisor, which may be stopped, has room for it."""
        if not self._line.say(word, number) and not self._gone:
            self._loop.call_later(SAY_AGAIN_S, self._say, word, number)

    def _count(self, word: Word, count: int) -> None:
        self._counts[word] = count
        self._say_count(word)

    def _say_count(self, word: Word) -> None:
        if not self._line.say(word, self._counts[word]) and not self._gone:
            self._loop.call_later(SAY_AGAIN_S, self._say_count, word)


async def work(post: Post, settings: Settings) -> None:
    me = Worker(post.number, post.folder)
    await serve_from(HandedOver(post), settings, post.example, me)
