"""The supervisor's handle of a worker: its process, its channel, and connections in transit."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

from service.processes.channel import Channel, MessageType

MOST_IN_TRANSIT = 64  # connections to one worker
FULL_PAUSE_S = 0.1  # for a worker without a free descriptor
SILENT_S = 0.15  # without an answer, after which its connections go to others
STUCK_S = 10.0  # without an answer, after which it is killed
# The same before its first answer: it imports, perhaps on a slow machine.
STUCK_AT_START_S = 120.0


class InTransit(NamedTuple):
    """A connection that the worker has not accepted yet."""

    number: int
    kind: MessageType
    connection: socket.socket


class WorkerHandle:
    def __init__(
        self, number: int, process: asyncio.subprocess.Process, channel: Channel, far: Channel
    ) -> None:
        """``far`` is the worker's own end of ``channel``."""
        self.number, self.process, self.channel, self._far = number, process, channel, far
        self.open, self.ready, self.ready_since, self.stopping = False, False, 0.0, False
        self.sent = self.closed = 0  # public connections
        self.last_used = -1  # when it was last sent one
        self._last_number = 0  # of a connection of either port
        self._in_transit: deque[InTransit] = deque()
        self._asked = self._pinged = self._has_answered = False
        self._unanswered_s, self._full_until = 0.0, 0.0

    @property
    def connections(self) -> int:
        return self.sent - self.closed

    @property
    def is_silent(self) -> bool:
        """Its event loop is late: others are the better choice."""
        return self._unanswered_s > SILENT_S

    @property
    def is_stuck(self) -> bool:
        """It is stopped, or its event loop is blocked."""
        return self._unanswered_s > (STUCK_S if self._has_answered else STUCK_AT_START_S)

    def send_connection(self, kind: MessageType, connection: socket.socket) -> bool:
        """False if it cannot take one now."""
        number = self._last_number + 1
        if len(self._in_transit) >= MOST_IN_TRANSIT or monotonic() < self._full_until:
            return False
        if not self.channel.send(kind, number, connection):
            return False
        self._last_number = number
        self.sent += kind is MessageType.SERVICE
        self._in_transit.append(InTransit(number, kind, connection))
        return True

    def accepted(self, number: int) -> None:
        """Connections up to this number are the worker's."""
        while self._in_transit and self._in_transit[0].number <= number:
            self._in_transit.popleft().connection.close()

    def returned(self, number: int) -> list[tuple[MessageType, socket.socket]]:
        """It has no descriptor for this connection, and gets none for a moment."""
        self._full_until = monotonic() + FULL_PAUSE_S
        return self._take_back({number})

    def ping(self, elapsed_s: float) -> None:
        """Ask for an answer, or count the time for which there has been none."""
        if self._asked:
            self._unanswered_s += elapsed_s
        self._asked = True
        self._pinged = self._pinged or self.channel.send(MessageType.PING)

    def answered(self) -> None:
        self._asked = self._pinged = False
        self._unanswered_s, self._has_answered = 0.0, True

    def recall(self) -> list[tuple[MessageType, socket.socket]]:
        """Take back the connections that it has not read; other messages are sent again."""
        if not self._in_transit:
            return []
        recalled, others = set[int](), list[MessageType]()
        with suppress(BlockingIOError):
            while (message := self._far.receive()) is not None:
                kind, number, copy = message
                if copy is not None:
                    copy.close()
                if kind in (MessageType.SERVICE, MessageType.ADMIN):
                    recalled.add(number)
                else:
                    others.append(kind)
        for kind in others:
            self.channel.send(kind)
        return self._take_back(recalled)

    def _take_back(self, numbers: set[int]) -> list[tuple[MessageType, socket.socket]]:
        back = [one for one in self._in_transit if one.number in numbers]
        self._in_transit = deque(one for one in self._in_transit if one.number not in numbers)
        self.sent -= sum(one.kind is MessageType.SERVICE for one in back)
        return [(one.kind, one.connection) for one in back]

    def end(self) -> list[tuple[MessageType, socket.socket]]:
        """Close the channel of a process that has ended; returns connections it did not accept."""
        self.channel.close()
        self._far.close()
        return [(one.kind, one.connection) for one in self._in_transit]

    def drain(self) -> None:
        """Tell it to stop soon. One that takes no connections yet has nothing to answer: SIGTERM
        ends it at once, or starts its drain if it has just begun to take them."""
        self.channel.send(MessageType.DRAIN)
        if not self.open:
            with suppress(ProcessLookupError):
                self.process.terminate()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
