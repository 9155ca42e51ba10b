"""Turns are fair, deadlines hold, and what fails is told to whoever waits."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from time import perf_counter, sleep
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.context import Priority
from service.engine.engine import LEAST_TURN, Engine, Job
from service.engine.request_queue import BATCH_TURN, RequestQueue
from service.errors import DeadlinePassed
from tests.service.engine_gate import FAR, Gate, Owner


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """One thread, chunks of ten."""
    engine = Engine(1, chunk=10, min_chunk=5)
    yield engine
    await asyncio.to_thread(engine.close)


async def test_a_short_list_does_not_wait_for_the_whole_of_a_long_one(engine: Engine) -> None:
    gate, order = Gate(engine), list[str]()
    await gate.closed()
    deadline = perf_counter() + FAR
    long = asyncio.create_task(engine.run(lambda *_: order.append("long"), 50, deadline))
    await asyncio.sleep(0)
    short = asyncio.create_task(engine.run(lambda *_: order.append("short"), 3, deadline))
    await asyncio.sleep(0)
    await gate.open()
    await asyncio.gather(long, short)
    assert order == ["long", "short", "long", "long", "long", "long"]


async def test_a_list_that_comes_while_a_long_one_is_scored_has_the_next_turn(
    engine: Engine,
) -> None:
    """The long one waited behind itself: what came during its turn waited for another one."""
    order, began, goes_on = list[str](), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def run(*_: int) -> None:
        order.append("long")
        loop.call_soon_threadsafe(began.set)
        assert goes_on.wait(FAR)

    deadline = perf_counter() + FAR
    long = asyncio.create_task(engine.run(run, 30, deadline))
    await began.wait()
    short = asyncio.create_task(engine.run(lambda *_: order.append("short"), 3, deadline))
    await asyncio.sleep(0)
    goes_on.set()
    await asyncio.gather(long, short)
    assert order == ["long", "short", "long", "long"]


@pytest.fixture
async def usual(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """One thread, chunks of 128; short requests are expected long after the last one."""
    monkeypatch.setattr("service.engine.engine.SHORT_EXPECTED_S", FAR)
    engine = Engine(1)
    yield engine
    await asyncio.to_thread(engine.close)


async def _turns(engine: Engine, rows: int = 640, *, divisible: bool = True) -> list[int]:
    """Lengths of a list's turns, in which each row is run once."""
    ran = list[tuple[int, int]]()

    def run(start: int, end: int) -> None:
        ran.append((start, end))

    await engine.run(run, rows, perf_counter() + FAR, divisible=divisible)
    assert [row for span in ran for row in range(*span)] == list(range(rows))
    return [end - start for start, end in ran]


async def _short(engine: Engine, rows: int = 50, **given: Any) -> None:
    """Run a request of so many rows."""
    given = {"prepare": lambda: None, **given}
    await engine.run(lambda *_: None, rows, perf_counter() + FAR, **given)


async def test_a_long_list_has_smaller_turns_while_short_ones_come(usual: Engine) -> None:
    assert await _turns(usual) == [128] * 5
    await _short(usual, rows=128)
    assert await _turns(usual) == [64] * 10
    assert await _turns(usual, divisible=False) == [128] * 5
    usual._short_until = perf_counter()  # that time has passed
    assert await _turns(usual) == [128] * 5


async def test_a_long_list_has_whole_turns_while_others_wait(usual: Engine) -> None:
    """It is overtaken at each turn: with smaller ones it would have half its share."""
    gate = Gate(usual)
    await gate.closed()
    long = asyncio.create_task(_turns(usual))
    await asyncio.sleep(0)
    short = [asyncio.create_task(_short(usual)) for _ in range(3)]
    await asyncio.sleep(0)
    await gate.open()
    await asyncio.gather(*short)
    assert await long == [128] + [64] * 8


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"rows": 129}, id="a longer list"),
        pytest.param({"priority": Priority.BATCH}, id="one at batch priority"),
        pytest.param({"prepare": None}, id="a later pass of a request"),
    ],
)
async def test_after_others_no_short_ones_are_expected(
    usual: Engine, given: dict[str, Any]
) -> None:
    await _short(usual, **given)
    assert await _turns(usual) == [128] * 5


@pytest.mark.parametrize("threads", [1, 6, 16])
async def test_lists_of_a_few_chunks_have_whole_turns_whatever_the_threads(
    usual: Engine, threads: int
) -> None:
    """Of 512 candidates and fewer: smaller turns would take more time of every one of them."""
    usual._cut_as = threads
    await _short(usual)
    for rows in (129, 350, 512):
        whole = [end - start for start, end in usual.spans(rows)]
        assert await _turns(usual, rows) == whole
    assert max(await _turns(usual, 5_000)) < 96


@pytest.mark.parametrize(("least", "turns"), [(1, [32] * 20), (64, [64] * 10), (128, [128] * 5)])
async def test_smaller_turns_are_not_tiny(usual: Engine, least: int, turns: list[int]) -> None:
    usual._min_chunk = least
    await _short(usual)
    assert await _turns(usual) == turns


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 2_000), st.integers(1, 16))
def test_smaller_turns_cover_every_row_once(
    chunk: int, least: int, rows: int, threads: int
) -> None:
    engine = Engine.__new__(Engine)
    engine._cut_as, engine.chunk, engine._min_chunk = threads, chunk, least
    engine._short_until, engine._counting = perf_counter() + FAR, threading.Lock()
    engine._queue = RequestQueue[Job]()
    whole, job = engine.spans(rows), Job.__new__(Job)
    job.waiting, job.unfinished, job.divisible = deque(whole), len(whole), True
    taken = []
    while job.waiting:
        taken.append(engine._next_span(job, perf_counter()))
    assert [row for span in taken for row in range(*span)] == list(range(rows))
    assert job.unfinished == len(taken)
    sizes = [end - start for start, end in taken]
    turn = max(least, LEAST_TURN)
    assert max(sizes) <= max(1.5 * turn, 1)
    assert min(sizes) >= min(turn / 2, *(end - start for start, end in whole))


async def test_threads_that_share_lists_of_all_lengths_run_each_row_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With smaller turns now and then, and lists that fail, expire or are cancelled."""
    monkeypatch.setattr("service.engine.engine.SHORT_EXPECTED_S", 1e-3)
    engine, random = Engine(3, chunk=64, min_chunk=32), np.random.default_rng(0)
    lengths = np.where(random.random(400) < 0.5, 3, random.integers(1, 2_000, 400))
    lists = [np.zeros(length, np.int64) for length in lengths]
    seconds = np.where(random.random(400) < 0.1, 2e-3, FAR)

    async def score(number: int) -> None:
        rows = lists[number]

        def run(start: int, end: int) -> None:
            rows[start:end] += 1
            if number % 17 == 0:
                raise ValueError(number)

        deadline = perf_counter() + seconds[number]
        await engine.run(run, len(rows), deadline, lambda: None, divisible=True)

    try:
        for start in range(0, len(lists), 20):
            tasks = [asyncio.create_task(score(n)) for n in range(start, start + 20)]
            await asyncio.sleep(0)
            tasks[7].cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            for number, error in enumerate(ended, start):
                assert error is None or type(error) in (
                    (ValueError, DeadlinePassed, asyncio.CancelledError)
                )
                assert (lists[number] <= 1).all()
                assert (error is None) <= bool((lists[number] == 1).all())
        await _short(engine)
        assert len(engine._queue) == 0
    finally:
        await asyncio.to_thread(engine.close)


def test_a_shared_list_is_taken_where_no_other_waits_and_goes_behind_them_after_its_turn() -> None:
    queue, long, first, second = RequestQueue[Owner](), Owner(), Owner(), Owner()
    queue.put(long)
    assert queue.take() is long
    own = queue.share(long)
    assert queue.take() is long  # by another thread: nothing else waits
    others = queue.share(long)
    queue.put(first)
    queue.end_turn(own)  # the other thread has it
    assert queue.take() is first
    queue.put(second)
    assert queue.take() is second
    queue.end_turn(others)
    assert queue.take() is long
    assert len(queue) == 0


async def test_what_is_left_of_a_failed_list_is_not_run(engine: Engine) -> None:
    ran = list[int]()

    def run(start: int, end: int) -> None:
        ran.append(start)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await engine.run(run, 50, perf_counter() + FAR)
    await engine.run(lambda *_: None, 1, perf_counter() + FAR)
    assert ran == [0]


async def test_long_lists_have_turns_one_after_the_other(engine: Engine) -> None:
    gate, order = Gate(engine), list[str]()
    await gate.closed()
    deadline = perf_counter() + FAR
    runs = [
        asyncio.create_task(engine.run(lambda *_, name=name: order.append(name), 30, deadline))
        for name in "abc"
    ]
    await asyncio.sleep(0)
    await gate.open()
    await asyncio.gather(*runs)
    assert order == list("abcabcabc")


async def test_batch_waits_for_online_but_not_for_ever(engine: Engine) -> None:
    gate, order = Gate(engine), list[str]()
    await gate.closed()
    deadline = perf_counter() + FAR
    batch = engine.run(lambda *_: order.append("batch"), 3, deadline, None, Priority.BATCH)
    online = engine.run(lambda *_: order.append("online"), 20 * BATCH_TURN, deadline)
    both = asyncio.gather(batch, online)
    await asyncio.sleep(0)
    await gate.open()
    await both
    assert len(order) == 2 * BATCH_TURN + 1
    assert order.index("batch") == pytest.approx(BATCH_TURN, abs=1)


async def test_expired_work_is_answered_at_its_deadline_and_never_run(engine: Engine) -> None:
    gate, ran = Gate(engine), list[str]()
    await gate.closed()
    began = perf_counter()
    with pytest.raises(DeadlinePassed):
        await engine.run(
            lambda *_: ran.append("run"), 30, began + 0.05, prepare=lambda: ran.append("prepare")
        )
    assert perf_counter() - began < FAR / 2  # although the thread is still held
    await gate.open()
    await engine.run(lambda *_: None, 1, perf_counter() + FAR)  # what waited has had its turn
    assert (ran, engine.expired) == ([], 1)


async def test_the_deadline_is_looked_at_before_each_chunk(engine: Engine) -> None:
    ran = list[int]()
    deadline = perf_counter() + 0.5  # enough for the first chunk to begin

    def slow(start: int, end: int) -> None:
        ran.append(start)
        while perf_counter() < deadline:
            sleep(0.01)

    with pytest.raises(DeadlinePassed):
        await engine.run(slow, 30, deadline)
    await engine.run(lambda *_: None, 1, perf_counter() + FAR)
    assert (ran, engine.expired_runs) == ([0], 0)


async def test_a_failure_reaches_whoever_waits_and_nobody_else(engine: Engine) -> None:
    def fail(start: int, end: int) -> None:
        raise MemoryError("the graph wants 34 GB")

    ran = list[int]()
    deadline = perf_counter() + FAR
    failing = engine.run(fail, 30, deadline)
    fine = engine.run(lambda start, end: ran.append(start), 30, deadline)
    failed, done = await asyncio.gather(failing, fine, return_exceptions=True)
    assert isinstance(failed, MemoryError)
    assert not isinstance(done, BaseException)
    assert ran == [0, 10, 20]


async def test_a_call_that_begins_after_its_deadline_is_counted(engine: Engine) -> None:
    """Were it not looked at before, that is: the count is no tautology."""
    engine._live = lambda job, now: True  # type: ignore[method-assign]
    gate = Gate(engine)
    await gate.closed()  # so that the deadline's answer comes before the first chunk
    with pytest.raises(DeadlinePassed):
        await engine.run(lambda *_: None, 30, perf_counter() - 1)
    await gate.open()
    await engine.run(lambda *_: None, 30, perf_counter() + FAR)  # in turns: its last is the last
    assert engine.expired_runs == 3


async def test_a_core_taken_away_after_the_deadline_was_checked_is_no_fault(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_span = engine._next_span

    def passes(job: Job, checked: float) -> tuple[int, int]:
        job.deadline = float(np.nextafter(checked, np.inf))  # before the call begins
        return next_span(job, checked)

    monkeypatch.setattr(engine, "_next_span", passes)
    await engine.run(lambda *_: None, 1, perf_counter() + FAR)
    assert engine.expired_runs == 0


async def test_nobody_waiting_means_nothing_more_is_run(engine: Engine) -> None:
    gate, ran = Gate(engine), list[int]()
    await gate.closed()
    task = asyncio.create_task(
        engine.run(lambda start, end: ran.append(start), 30, perf_counter() + FAR)
    )
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await gate.open()
    await engine.run(lambda *_: None, 1, perf_counter() + FAR)
    assert ran == []


async def test_clock_readings_follow_the_order_of_the_work(engine: Engine) -> None:
    work = await engine.run(lambda *_: None, 25, perf_counter() + FAR, prepare=lambda: None)
    assert work.submitted <= work.started <= work.prepared <= work.finished <= perf_counter()


async def test_two_threads_share_one_long_request() -> None:
    engine, together = Engine(2, chunk=10, min_chunk=5), threading.Barrier(2, timeout=FAR)
    names = set()

    def run(start: int, end: int) -> None:
        together.wait()  # passes only when both are here at once
        names.add(threading.current_thread().name)

    await engine.run(run, 40, perf_counter() + FAR)
    await asyncio.to_thread(engine.close)
    assert len(names) == 2


@given(st.integers(1, 20_000), st.integers(1, 16))
def test_chunks_cover_every_row_once_and_keep_their_size(rows: int, threads: int) -> None:
    engine = Engine.__new__(Engine)
    engine._cut_as, engine.chunk, engine._min_chunk = threads, 512, 64
    spans = engine.spans(rows)
    assert [row for span in spans for row in range(*span)] == list(range(rows))
    sizes = [end - start for start, end in spans]
    assert max(sizes) <= 512
    assert max(sizes) - min(sizes) <= 1
    assert len(spans) <= max(1, threads, -(-rows // 512))


async def test_lists_are_cut_as_an_engine_of_other_threads_cuts_them() -> None:
    """A batch worker of one thread has the chunks, and so the bits, of a service of several."""
    several, one = Engine(3), Engine(1, cut_as=3)
    try:
        lengths = range(1, 2000, 7)
        assert [one.spans(n) for n in lengths] == [several.spans(n) for n in lengths]
        assert one.threads == 1
    finally:
        several.close()
        one.close()
