"""What a supervisor and a worker say to each other: short messages, some with a connection.

    to the worker    SERVICE, ADMIN + number, with the descriptor of an accepted connection
                     PING     answer, if your event loop turns
                     NOTICE   stop soon: say so, go on answering
                     LAST     no connection follows
    to the supervisor PONG
                     OPEN     connections may come
                     READY    requests are answered
                     TAKEN + number   all connections up to this number are the worker's now,
                     BACK + number    but for this one, for which it has no descriptor
                     LEFT + count     so many public connections have ended
                     LEAVING  give me no more connections

A connection stays open at the supervisor until it is TAKEN, so one that was on its way to a worker
that died goes to another. The supervisor keeps both ends of the line: it can take messages back
that a worker does not come to read.
"""

from __future__ import annotations

import socket
import struct
from enum import Enum
from pathlib import Path

from pydantic import BaseModel

MESSAGE = struct.Struct("!cQ")


class Post(BaseModel):
    """What a worker is told when it is started."""

    number: int  # from 0; the one that takes the place of a dead one has its number
    line: int  # descriptor
    folder: Path  # of this supervisor's workers, and new
    url: str  # of the public port
    example: bool = False


class Word(Enum):
    SERVICE = b"s"
    ADMIN = b"a"
    PING = b"p"
    NOTICE = b"n"
    LAST = b"l"
    PONG = b"q"
    OPEN = b"o"
    READY = b"r"
    TAKEN = b"t"
    BACK = b"b"
    LEFT = b"e"
    LEAVING = b"g"


class Line:
    """One end. Non-blocking; a message is whole or absent."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.end = end

    def say(self, word: Word, number: int = 0, connection: socket.socket | None = None) -> bool:
        """False: the other end does not listen, or does not keep up."""
        message = MESSAGE.pack(word.value, number)
        try:
            if connection is None:
                self.end.send(message)
            else:
                socket.send_fds(self.end, [message], [connection.fileno()])
        except OSError:
            return False
        return True

    def hear(self) -> tuple[Word, int, socket.socket | None] | None:
        """The next message, with its connection if there is a descriptor to spare for it. None:
        the other end is gone. BlockingIOError."""
        try:
            message, descriptors, _, _ = socket.recv_fds(
                self.end, MESSAGE.size, 1, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return None
        if not message:
            return None
        word, number = MESSAGE.unpack(message)
        connection = socket.socket(fileno=descriptors[0]) if descriptors else None
        if connection is not None:
            connection.setblocking(False)
        return Word(word), number, connection

    def close(self) -> None:
        self.end.close()


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
