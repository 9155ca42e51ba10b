"""No request that has ended waits for Python's collector, which may come seldom."""

from __future__ import annotations

import asyncio
import gc
from time import perf_counter
from types import FunctionType, ModuleType

import numpy as np
import pytest

from feature_store.contract import Ids, ItemBatch
from feature_store.errors import StoreUnavailable
from feature_store.lmdb.store import LmdbStore
from service.context import StageTimer
from service.errors import ServiceError
from service.items.table import DerivedItems, ItemTable
from service.scoring.query import ScoreQuery
from service.scoring.result import ScoreResult
from service.server.cycle import Cycle
from tests.service.engine_gate import FAR, Gate
from tests.service.in_process import opened
from tests.service.live import listening, until
from tests.service.wire import PATIENT, POST
from tests.service.world import World

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def test_an_answered_or_refused_request_is_not_left_to_it(world: World) -> None:
    """Nor what was read of a body that is refused."""
    async with opened(world) as state, listening(state) as port:
        gc.collect()
        gc.disable()
        try:
            before = alive()
            for body in (b'{"user_id":1,"candidates":[1]}', b"x" * 300_000 + b"0" * 1_000_000):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
                for start in range(0, len(body), 50_000):
                    piece = body[start : start + 50_000]
                    writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                writer.write(b"0\r\n\r\n")
                status = (await reader.readline()).split()[1]
                assert status == (b"200" if len(body) < 100 else b"413")
                writer.close()
                await until(lambda: alive() == before)
        finally:
            gc.enable()


async def test_an_idle_connection_keeps_neither_question_nor_answer(world: World) -> None:
    def kept() -> int:
        return sum(isinstance(one, ScoreResult | ScoreQuery) for one in gc.get_objects())

    body = b'{"user_id":1,"candidates":[%d]}' % world.ids[0]
    async with opened(world) as state, listening(state) as port:
        before = kept()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + PATIENT + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert (await reader.readline()).split()[1] == b"200"
        await until(lambda: kept() == before)
        assert not reader.at_eof()
        writer.close()


async def test_an_answer_keeps_neither_table_nor_what_was_fetched(world: World) -> None:
    """It may wait for a slow reader, or for its shadow, longer than its version is loaded."""
    async with opened(world, max_table_items=10) as state:
        version, deadline = state.ready(), perf_counter() + FAR
        query = ScoreQuery(1, np.array(world.ids[:40]))
        answer, _ = await state.scoring.score(query, version, deadline, StageTimer())
        assert not answer.complete  # some of it was fetched
        kinds = (ItemTable, DerivedItems)
        assert any(isinstance(one, kinds) for one in reachable(version))
        assert not any(isinstance(one, kinds) for one in reachable(answer))


def reachable(start: object) -> list[object]:
    """Whatever it keeps, itself included; classes and modules keep everything."""
    found, left = dict[int, object](), [start]
    while left:
        one = left.pop()
        if id(one) not in found and not isinstance(one, type | ModuleType | FunctionType):
            found[id(one)] = one
            left.extend(gc.get_referents(one))
    return list(found.values())


async def test_nor_is_one_that_ends_badly(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its deadline passes, its client leaves, its store fails: each error has a traceback."""

    async def fail(store: LmdbStore, item_ids: Ids) -> ItemBatch:
        raise StoreUnavailable("it is away")

    async def sent(*headers: bytes, item: int = 1) -> Stream:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        body = b'{"user_id":1,"candidates":[%d]}' % item
        length = b"Content-Length: %d\r\n" % len(body)
        writer.write(POST + b"".join(headers) + length + b"\r\n" + body)
        return reader, writer

    async def told(stream: Stream) -> int:
        reader, writer = stream
        status = int((await reader.readline()).split()[1])
        writer.close()
        return status

    known = int(world.ids[0])
    async with opened(world) as state, listening(state) as port:
        gate = Gate(state.engine)
        await gate.closed()
        gc.collect()
        gc.disable()
        try:
            before = alive()
            assert await told(await sent(b"X-Deadline-Ms: 100\r\n", item=known)) == 504
            queued = state.engine.queued
            _, leaver = await sent(PATIENT, item=known)
            await until(lambda: state.engine.queued > queued)
            leaver.close()
            monkeypatch.setattr(LmdbStore, "items", fail)
            assert await told(await sent(PATIENT, item=2**61)) == 503
            await gate.open()  # until then they wait in the engine's queue
            await until(lambda: alive() == before)
        finally:
            gc.enable()


def alive() -> int:
    return sum(isinstance(one, Cycle | ServiceError) for one in gc.get_objects())
