"""A worker as its supervisor sees it: a process, the line to it, and what is on its way there."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import NamedTuple

from service.processes.channel import Line, Word

MOST_UNTAKEN = 64  # connections on their way to one worker
FULL_PAUSE_S = 0.1  # for one without a descriptor to spare
SILENT_S = 0.15  # without an answer, after which others are given its connections
STUCK_S = 10.0  # without an answer, after which it is ended
# The same, of one that has not answered yet: it imports, on a machine that may be slow.
STUCK_AT_START_S = 120.0


class Untaken(NamedTuple):
    """A connection on its way."""

    number: int
    word: Word
    connection: socket.socket


class Colleague:
    def __init__(
        self, number: int, process: asyncio.subprocess.Process, line: Line, far: Line
    ) -> None:
        """``far`` is the worker's own end of ``line``."""
        self.number, self.process, self.line, self._far = number, process, line, far
        self.open, self.ready, self.ready_since, self.leaving = False, False, 0.0, False
        self.handed = self.left = 0  # public connections
        self.turn = -1  # when it was last handed one
        self._sent = 0  # the number of the last connection of either port
        self._untaken: deque[Untaken] = deque()
        self._asked = self._pinged = self._has_answered = False
        self._unanswered_s, self._full_until = 0.0, 0.0

    @property
    def connections(self) -> int:
        return self.handed - self.left

    @property
    def is_silent(self) -> bool:
        """Its event loop is late: others are the better choice."""
        return self._unanswered_s > SILENT_S

    @property
    def is_stuck(self) -> bool:
        """It is stopped, or its event loop is blocked."""
        return self._unanswered_s > (STUCK_S if self._has_answered else STUCK_AT_START_S)

    def hand(self, word: Word, connection: socket.socket) -> bool:
        """Whether it is on its way."""
        number = self._sent + 1
        if len(self._untaken) >= MOST_UNTAKEN or monotonic() < self._full_until:
            return False
        if not self.line.say(word, number, connection):
            return False
        self._sent = number
        self.handed += word is Word.SERVICE
        self._untaken.append(Untaken(number, word, connection))
        return True

    def taken(self, number: int) -> None:
        """Up to this one they are the worker's own."""
        while self._untaken and self._untaken[0].number <= number:
            self._untaken.popleft().connection.close()

    def back(self, number: int) -> list[tuple[Word, socket.socket]]:
        """It has no descriptor for this one, and is given none for a moment."""
        self._full_until = monotonic() + FULL_PAUSE_S
        return self._take_back({number})

    def ping(self, elapsed_s: float) -> None:
        """Ask whether its loop turns, or count the time for which it has not answered."""
        if self._asked:
            self._unanswered_s += elapsed_s
        self._asked = True
        self._pinged = self._pinged or self.line.say(Word.PING)

    def answered(self) -> None:
        self._asked = self._pinged = False
        self._unanswered_s, self._has_answered = 0.0, True

    def recall(self) -> list[tuple[Word, socket.socket]]:
        """Take back the connections that it has not read; what else it was told is told again."""
        if not self._untaken:
            return []
        recalled, others = set[int](), list[Word]()
        with suppress(BlockingIOError):
            while (heard := self._far.hear()) is not None:
                word, number, copy = heard
                if copy is not None:
                    copy.close()
                if word in (Word.SERVICE, Word.ADMIN):
                    recalled.add(number)
                else:
                    others.append(word)
        for word in others:
            self.line.say(word)
        return self._take_back(recalled)

    def _take_back(self, numbers: set[int]) -> list[tuple[Word, socket.socket]]:
        back = [one for one in self._untaken if one.number in numbers]
        self._untaken = deque(one for one in self._untaken if one.number not in numbers)
        self.handed -= sum(one.word is Word.SERVICE for one in back)
        return [(one.word, one.connection) for one in back]

    def end(self) -> list[tuple[Word, socket.socket]]:
        """Close the line of a process that has ended. What was on its way is for others."""
        self.line.close()
        self._far.close()
        return [(one.word, one.connection) for one in self._untaken]

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
