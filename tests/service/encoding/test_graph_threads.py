"""Threads that run graphs yield to all others; those that hold the interpreter's lock do not."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from service.encoding.graph_threads import GraphThreads
from service.engine.niceness import LOWEST
from service.state import ServiceState
from tests.service.content_encoder import content_encoder
from tests.service.in_process import client_of, opened
from tests.service.world import World, make_world
from text.runtime.steps import EncodingSteps


@pytest.fixture
def graphs() -> Iterator[GraphThreads]:
    graphs = GraphThreads(2)
    yield graphs
    graphs.close()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, items=40, users=3)


@pytest.fixture
async def state(world: World, tmp_path: Path) -> AsyncIterator[ServiceState]:
    async with opened(world, encoder=content_encoder(tmp_path / "encoder")) as state:
        yield state


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_a_call_runs_at_the_lowest_priority_and_its_caller_does_not(graphs: GraphThreads) -> None:
    assert graphs(niceness) == LOWEST
    assert niceness() < LOWEST


def test_errors_are_the_callers_and_end_no_thread(graphs: GraphThreads) -> None:
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            graphs(divmod, 1, 0)
    assert graphs(divmod, 7, 2) == (3, 1)


def test_calls_of_several_threads_get_each_its_own_result(graphs: GraphThreads) -> None:
    found = dict[int, int]()

    def ask(number: int) -> None:
        for _ in range(50):
            found[number] = graphs(abs, -number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: number for number in range(1, 9)}


def test_once_closed_calls_are_made_by_their_own_threads() -> None:
    graphs = GraphThreads(1)
    graphs.close()
    assert graphs(threading.current_thread) is threading.current_thread()


async def test_texts_are_read_at_the_event_loops_priority(
    state: ServiceState, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, read = list[int](), EncodingSteps.read

    def noted(steps: EncodingSteps, part: int) -> None:
        found.append(niceness())
        read(steps, part)

    monkeypatch.setattr(EncodingSteps, "read", noted)
    async with client_of(state) as client:
        answer = await client.post("/v1/embeddings", json={"input": "das Haus"})
    assert answer.status_code == 200
    assert found == [niceness()]
