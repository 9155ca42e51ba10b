"""The channel between supervisor and worker: short messages, some with a connection's descriptor.

    to the worker     SERVICE, ADMIN + number, with the descriptor of an accepted connection
                      PING      answer, if your event loop runs
                      DRAIN     stop soon: report not ready, go on answering
                      LAST      no connection follows
    to the supervisor PONG
                      ACCEPTING connections may come
                      READY     requests are answered
                      ACCEPTED + number  connections up to this number are the worker's,
                      RETURNED + number  except this one, for which it has no descriptor
                      CLOSED + count     public connections that have ended
                      STOPPING  send no more connections

The supervisor keeps a connection open until it is ACCEPTED, so that one sent to a worker that died
goes to another. It also keeps both ends of the channel, to take back messages that a worker does
not read.
"""

from __future__ import annotations

import socket
import struct
from enum import Enum
from pathlib import Path

from pydantic import BaseModel

MESSAGE = struct.Struct("!cQ")


class WorkerArgs(BaseModel):
    """The argument of the command that starts a worker."""

    number: int  # from 0; the successor of a dead worker has its number
    channel: int  # descriptor
    folder: Path  # of this supervisor's workers, and new
    url: str  # of the public port
    admin_url: str
    example: bool = False


class MessageType(Enum):
    SERVICE = b"s"
    ADMIN = b"a"
    PING = b"p"
    DRAIN = b"n"
    LAST = b"l"
    PONG = b"q"
    ACCEPTING = b"o"
    READY = b"r"
    ACCEPTED = b"t"
    RETURNED = b"b"
    CLOSED = b"e"
    STOPPING = b"g"


class Channel:
    """One end. Non-blocking; a message is whole or absent."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self.end = end

    def send(
        self, kind: MessageType, number: int = 0, connection: socket.socket | None = None
    ) -> bool:
        """False if the other end is closed, or its queue is full."""
        message = MESSAGE.pack(kind.value, number)
        try:
            if connection is None:
                self.end.send(message)
            else:
                socket.send_fds(self.end, [message], [connection.fileno()])
        except OSError:
            return False
        return True

    def receive(self) -> tuple[MessageType, int, socket.socket | None] | None:
        """The next message, with its connection if a descriptor is free for it. None: the other
        end is closed. BlockingIOError: no message."""
        try:
            message, descriptors, _, _ = socket.recv_fds(
                self.end, MESSAGE.size, 1, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionError:
            return None
        if not message:
            return None
        kind, number = MESSAGE.unpack(message)
        connection = socket.socket(fileno=descriptors[0]) if descriptors else None
        if connection is not None:
            connection.setblocking(False)
        return MessageType(kind), number, connection

    def close(self) -> None:
        self.end.close()


def socket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
