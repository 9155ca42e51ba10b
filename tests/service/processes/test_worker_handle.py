"""A worker as its supervisor sees it: pinged, silent, stuck; what it has not read is recalled."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from service.processes.channel import Channel, MessageType, socket_pair
from service.processes.worker_handle import SILENT_S, STUCK_AT_START_S, STUCK_S, WorkerHandle


@pytest.fixture
def handle() -> Iterator[WorkerHandle]:
    ours, theirs = socket_pair()
    one = WorkerHandle(0, cast("Any", None), Channel(ours), Channel(theirs))
    yield one
    one.end()


def worker_end(handle: WorkerHandle) -> Channel:
    return handle._far


def a_connection() -> socket.socket:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def test_it_is_silent_then_stuck_by_the_time_that_it_was_waited_for(handle: WorkerHandle) -> None:
    handle.answered()
    handle.ping(100.0)  # before it was asked
    assert not handle.is_silent
    handle.ping(SILENT_S + 0.01)
    assert handle.is_silent
    assert not handle.is_stuck
    handle.ping(STUCK_S)
    assert handle.is_stuck
    handle.answered()
    assert not handle.is_silent
    assert not handle.is_stuck


def test_one_that_has_not_answered_yet_has_longer(handle: WorkerHandle) -> None:
    handle.ping(0.1)
    handle.ping(STUCK_S + 1)
    assert not handle.is_stuck
    handle.ping(STUCK_AT_START_S)
    assert handle.is_stuck


def test_only_one_ping_is_on_its_way(handle: WorkerHandle) -> None:
    for _ in range(100):
        handle.ping(0.1)
    assert worker_end(handle).receive() == (MessageType.PING, 0, None)
    with pytest.raises(BlockingIOError):
        worker_end(handle).receive()


def test_what_it_has_not_read_is_taken_back_and_what_it_was_told_is_not(
    handle: WorkerHandle,
) -> None:
    connections = [a_connection() for _ in range(3)]
    handle.send_connection(MessageType.SERVICE, connections[0])
    message = worker_end(
        handle
    ).receive()  # the worker has this one, and is stopped before it says so
    assert message is not None
    assert message[:2] == (MessageType.SERVICE, 1)
    handle.ping(0.1)
    handle.send_connection(MessageType.SERVICE, connections[1])
    handle.channel.send(MessageType.DRAIN)
    handle.send_connection(MessageType.ADMIN, connections[2])
    assert handle.recall() == [
        (MessageType.SERVICE, connections[1]),
        (MessageType.ADMIN, connections[2]),
    ]
    assert handle.connections == 1
    words = [
        said[0] for said in (worker_end(handle).receive(), worker_end(handle).receive()) if said
    ]
    assert words == [MessageType.PING, MessageType.DRAIN]
    with pytest.raises(BlockingIOError):
        worker_end(handle).receive()
    handle.accepted(1)  # it goes on
    assert connections[0].fileno() == -1
    assert handle.end() == []
    for one in (message[2], *connections):
        if one is not None:
            one.close()


def test_what_it_had_not_taken_when_it_ended_is_for_others(handle: WorkerHandle) -> None:
    connections = [a_connection() for _ in range(2)]
    for connection in connections:
        handle.send_connection(MessageType.SERVICE, connection)
    handle.accepted(1)
    assert handle.end() == [(MessageType.SERVICE, connections[1])]
    connections[1].close()
