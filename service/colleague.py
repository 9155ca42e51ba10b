"""A worker as its supervisor sees it: a process, the line to it, and what is on its way there."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import suppress
from time import monotonic

from service.handing import Line, Word

MOST_UNTAKEN = 64  # connections on their way to one worker
STUCK_S = 10.0  # a worker that takes nothing for so long is ended


class Colleague:
    def __init__(self, number: int, process: asyncio.subprocess.Process, line: Line) -> None:
        self.number, self.process, self.line = number, process, line
        self.ready, self.ready_since, self.leaving = False, 0.0, False
        self.handed = self.left = 0  # public connections
        self.turn = -1  # when it was last handed one
        self._sent = 0  # the number of the last connection of either port
        self._untaken: deque[tuple[int, Word, socket.socket, float]] = deque()

    @property
    def connections(self) -> int:
        return self.handed - self.left

    def hand(self, word: Word, connection: socket.socket) -> bool:
        """Whether it is on its way."""
        number = self._sent + 1
        if len(self._untaken) >= MOST_UNTAKEN or not self.line.say(word, number, connection):
            return False
        self._sent = number
        self.handed += word is Word.SERVICE
        self._untaken.append((number, word, connection, monotonic()))
        return True

    def taken(self, number: int) -> None:
        """Up to this one they are the worker's own."""
        while self._untaken and self._untaken[0][0] <= number:
            self._untaken.popleft()[2].close()

    def untaken_connections(self) -> list[tuple[Word, socket.socket]]:
        return [(word, connection) for _, word, connection, _ in self._untaken]

    def is_stuck(self) -> bool:
        return bool(self._untaken) and monotonic() - self._untaken[0][3] > STUCK_S

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
