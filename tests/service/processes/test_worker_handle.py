"""A worker as its supervisor sees it: pinged, silent, stuck; what it has not read is recalled."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest

from service.processes.channel import Line, Word, pair
from service.processes.worker_handle import SILENT_S, STUCK_AT_START_S, STUCK_S, Colleague


@pytest.fixture
def colleague() -> Iterator[Colleague]:
    ours, theirs = pair()
    one = Colleague(0, cast("Any", None), Line(ours), Line(theirs))
    yield one
    one.end()


def worker_end(colleague: Colleague) -> Line:
    return colleague._far


def a_connection() -> socket.socket:
    ours, theirs = socket.socketpair()
    theirs.close()
    return ours


def test_it_is_silent_then_stuck_by_the_time_that_it_was_waited_for(colleague: Colleague) -> None:
    colleague.answered()
    colleague.ping(100.0)  # before it was asked
    assert not colleague.is_silent
    colleague.ping(SILENT_S + 0.01)
    assert colleague.is_silent
    assert not colleague.is_stuck
    colleague.ping(STUCK_S)
    assert colleague.is_stuck
    colleague.answered()
    assert not colleague.is_silent
    assert not colleague.is_stuck


def test_one_that_has_not_answered_yet_has_longer(colleague: Colleague) -> None:
    colleague.ping(0.1)
    colleague.ping(STUCK_S + 1)
    assert not colleague.is_stuck
    colleague.ping(STUCK_AT_START_S)
    assert colleague.is_stuck


def test_only_one_ping_is_on_its_way(colleague: Colleague) -> None:
    for _ in range(100):
        colleague.ping(0.1)
    assert worker_end(colleague).hear() == (Word.PING, 0, None)
    with pytest.raises(BlockingIOError):
        worker_end(colleague).hear()


def test_what_it_has_not_read_is_taken_back_and_what_it_was_told_is_not(
    colleague: Colleague,
) -> None:
    connections = [a_connection() for _ in range(3)]
    colleague.hand(Word.SERVICE, connections[0])
    heard = worker_end(
        colleague
    ).hear()  # the worker has this one, and is stopped before it says so
    assert heard is not None
    assert heard[:2] == (Word.SERVICE, 1)
    colleague.ping(0.1)
    colleague.hand(Word.SERVICE, connections[1])
    colleague.line.say(Word.NOTICE)
    colleague.hand(Word.ADMIN, connections[2])
    assert colleague.recall() == [(Word.SERVICE, connections[1]), (Word.ADMIN, connections[2])]
    assert colleague.connections == 1
    words = [
        said[0] for said in (worker_end(colleague).hear(), worker_end(colleague).hear()) if said
    ]
    assert words == [Word.PING, Word.NOTICE]
    with pytest.raises(BlockingIOError):
        worker_end(colleague).hear()
    colleague.taken(1)  # it goes on
    assert connections[0].fileno() == -1
    assert colleague.end() == []
    for one in (heard[2], *connections):
        if one is not None:
            one.close()


def test_what_it_had_not_taken_when_it_ended_is_for_others(colleague: Colleague) -> None:
    connections = [a_connection() for _ in range(2)]
    for connection in connections:
        colleague.hand(Word.SERVICE, connection)
    colleague.taken(1)
    assert colleague.end() == [(Word.SERVICE, connections[1])]
    connections[1].close()
