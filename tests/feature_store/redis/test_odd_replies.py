"""Replies of servers that are not as expected: read as Redis means them, or counted and passed
over. No background task ends by one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.crc import key_slot

from feature_store.errors import StoreError, StoreUnavailable
from feature_store.faults import FaultLog, repeat
from feature_store.redis.cluster import Cluster
from feature_store.redis.replies import address_of, id_of, slots_of
from feature_store.redis.sentinel import Sentinel
from feature_store.redis.standalone import Standalone
from feature_store.redis.topology import Command
from feature_store.redis.url import parse
from tests.feature_store.redis_moves import migrating
from tests.feature_store.redis_servers import ClusterGroup, Server, started, until
from tests.feature_store.samples import SHOP, ids, random_rows
from tests.feature_store.scripted_redis import Raw, scripted
from tests.feature_store.stores import connect

WITHIN_S = 20.0


async def soon(true: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def answered(call: Callable[[], Awaitable[list[Any]]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while await call() != [b"value"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Server]:
    """A cluster of one node."""
    server = Server(tmp_path / "alone", ["--cluster-enabled", "yes"])
    with started(server):
        server.cli("cluster", "addslotsrange", "0", "16383")
        until(lambda: "cluster_state:ok" in server.cli("cluster", "info"), "the cluster")
        yield server


@pytest.mark.parametrize("kind", ["unknown-endpoint", "hostname", "ip"])
async def test_a_node_named_without_a_host_is_where_the_reply_came_from(
    alone: Server, kind: str
) -> None:
    """NULL, ``?`` and, of a node that never met another, an empty address."""
    alone.client().config_set("cluster-preferred-endpoint-type", kind)
    [[_, _, master, *_]] = alone.client().execute_command("CLUSTER SLOTS")
    assert master[0] in (None, b"?", b"", "", "?", b"127.0.0.1")
    store = await connect(f"redis+cluster://localhost:{alone.port}", SHOP, create=True)
    await store.append(7, [1])
    await store.put_items(ids(3), random_rows(SHOP, 1))
    assert await store.count_items() == 1
    assert (await store.history(7)) is not None
    assert store.odd_replies == 0
    await store.close()


async def test_a_redirection_without_a_host_is_followed(
    cluster: ClusterGroup, redis_cluster_url: str
) -> None:
    """``MOVED 123 :6379``, and the map of such a cluster while it serves."""
    store = await connect(redis_cluster_url, SHOP, create=True)
    prefix = redis_cluster_url.rpartition("prefix=")[2]
    slot = key_slot(f"{prefix}:h:{{41}}".encode())
    await store.append(41, [1])
    for server in cluster.servers:
        server.client().config_set("cluster-preferred-endpoint-type", "unknown-endpoint")
    try:
        _, _, finish = migrating(cluster, slot)
        assert await store.append(41, [2])
        finish()
        assert await store.append(41, [3])
        found = await store.history(41)
        assert found is not None
        assert found[0] == 3
        await asyncio.sleep(0.6)  # another map, of NULL hosts, has been read
        assert await store.append(41, [4])
        assert await store.count_items() == 0  # every master is reached
    finally:
        for server in cluster.servers:
            server.client().config_set("cluster-preferred-endpoint-type", "ip")
    assert store.odd_replies == 0
    await store.close()


ODD_MAPS: list[Any] = [
    [],
    None,
    b"a map",
    7,
    [[0]],
    [[0, 16_383]],
    [[0, 16_383, []]],
    [[0, 16_383, [b"127.0.0.1"]]],
    [[0, 16_383, [b"127.0.0.1", b"port"]]],
    [[0, 16_383, [b"127.0.0.1", 0]]],
    [[0, 16_383, [b"\xff\xfe", 1]]],
    [[0, 16_384, [b"127.0.0.1", 1]]],
    [[-1, 5, [b"127.0.0.1", 1]]],
    [[9, 5, [b"127.0.0.1", 1]]],
    [None, b"x", [[[]]]],
    Raw(b"-ERR This instance has cluster support disabled\r\n"),
    Raw(b"-MOVED nowhere\r\n"),
]


@pytest.mark.parametrize("odd", ODD_MAPS, ids=repr)
async def test_an_odd_slot_map_is_passed_over_and_the_next_one_is_taken(odd: Any) -> None:
    asked, here = 0, list[int]()

    def answer(parts: list[bytes]) -> Any:
        nonlocal asked
        if parts[0] == b"CLUSTER":
            asked += 1
            return odd if asked <= 2 else [[0, 16_383, [None, here[0], b"id"]]]
        return b"value"

    async with scripted(answer) as port:
        here.append(port)
        faults = FaultLog()
        cluster = Cluster(parse(f"redis+cluster://127.0.0.1:{port}"), 1.0, faults)
        await soon(lambda: cluster.masters)
        deadline = asyncio.get_running_loop().time() + WITHIN_S
        assert await cluster.call([Command(("GET", b"k"), b"k")], deadline) == [b"value"]
        if odd != [] and not (isinstance(odd, Raw) and odd.startswith(b"-ERR")):
            assert faults.count
        await cluster.close()


async def test_of_a_map_that_is_odd_in_part_the_rest_is_taken() -> None:
    reply: Any = [[0, 99, [b"", 7001, b"a"]], [100, 199, b"noise"], [200, 16_383, [b"?", 7002]]]
    slots, odd = slots_of(reply, ("10.0.0.1", 7000))
    assert slots == [(0, 99, ("10.0.0.1", 7001)), (200, 16_383, ("10.0.0.1", 7002))]
    assert odd == [[100, 199, b"noise"]]


@pytest.mark.parametrize(
    "odd", [b"-MOVED\r\n", b"-MOVED x y\r\n", b"-ASK 1 :port\r\n", b"-MOVED 1 :0\r\n"]
)
async def test_an_odd_redirection_is_an_error_and_the_next_command_is_answered(odd: bytes) -> None:
    replies: list[Any] = [Raw(odd)]
    here: list[int] = []

    def answer(parts: list[bytes]) -> Any:
        if parts[0] == b"CLUSTER":
            return [[0, 16_383, [b"127.0.0.1", here[0], b"id"]]]
        return replies.pop() if replies else b"value"

    async with scripted(answer) as port:
        here.append(port)
        faults = FaultLog()
        cluster = Cluster(parse(f"redis+cluster://127.0.0.1:{port}"), 1.0, faults)
        await cluster.ready()
        loop = asyncio.get_running_loop()
        command = Command(("GET", b"k"), b"k", again=False)
        [first] = await cluster.call([command], loop.time() + 2.0)
        assert isinstance(first, StoreError)
        await answered(lambda: cluster.call([command], loop.time() + 2.0))
        assert faults.count
        await cluster.close()


@pytest.mark.parametrize("odd", [b"text", [b"h"], [None, None], [b"127.0.0.1", b"x"], 4, [[]]])
async def test_an_odd_reply_of_a_sentinel_is_passed_over(odd: Any) -> None:
    asked, here = 0, list[int]()

    def answer(parts: list[bytes]) -> Any:
        nonlocal asked
        if parts[0] == b"SENTINEL":
            asked += 1
            return odd if asked <= 2 else [b"", b"%d" % here[0]]
        return [b"master", 0, []] if parts[0] == b"ROLE" else b"value"

    async with scripted(answer) as port:
        here.append(port)
        faults = FaultLog()
        nodes = Sentinel(parse(f"redis+sentinel://127.0.0.1:{port}/main"), 1.0, faults)
        with contextlib.suppress(StoreError):
            await nodes.ready()
        loop = asyncio.get_running_loop()
        await answered(lambda: nodes.call([Command(("GET", b"k"), b"k")], loop.time() + 1))
        assert faults.count
        await nodes.close()


async def test_bytes_that_are_no_protocol_cost_their_connection_alone() -> None:
    replies: list[Any] = [Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")]
    async with scripted(lambda parts: replies.pop() if replies else b"value") as port:
        nodes = Standalone(parse(f"redis://127.0.0.1:{port}"), 1.0, FaultLog())
        await nodes.ready()
        loop = asyncio.get_running_loop()
        get = Command(("GET", b"k"), again=False)
        [first] = await nodes.call([get], loop.time() + 5)
        assert isinstance(first, StoreError)
        await answered(lambda: nodes.call([get], loop.time() + 5))
        await nodes.close()


async def test_background_work_goes_on_after_a_turn_that_raises() -> None:
    faults, turns = FaultLog(), 0

    async def turn() -> None:
        nonlocal turns
        turns += 1
        await asyncio.sleep(0)
        if turns == 1:
            raise AttributeError("'NoneType' object has no attribute 'decode'")
        if turns == 2:
            raise asyncio.CancelledError  # of something that it waited for

    task = asyncio.create_task(repeat("a task", turn, faults, 0.0))
    await soon(lambda: turns > 3)
    assert faults.count == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_same_oddity_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    faults = FaultLog(lambda: now)
    for _ in range(100):
        faults.note("odd map", "no list")
    now = 61.0
    faults.note("odd map", "no list")
    assert faults.count == 101
    assert [record.getMessage() for record in caplog.records] == [
        "odd map: no list (times: 1)",
        "odd map: no list (times: 100)",
    ]


@pytest.mark.parametrize(
    ("text", "number"),
    [(b"0", 0), (b"12", 12), (b"%d" % (2**63 - 1), 2**63 - 1)]
    + [(odd, None) for odd in (b"", b"-1", b"+1", b" 1", b"1_0", b"007", b"1.0", b"\xff", None, 4)]
    + [(b"%d" % 2**63, None), (b"9" * 5_000, None)],
)
def test_what_is_an_id_in_redis(text: Any, number: int | None) -> None:
    assert id_of(text) == number


def test_an_address_is_completed_from_the_one_that_was_asked() -> None:
    for unknown in (None, b"", "", b"?", "?"):
        assert address_of(unknown, 6380, ("10.0.0.7", 6379)) == ("10.0.0.7", 6380)
    assert address_of(b"node-2", 6380, ("10.0.0.7", 6379)) == ("node-2", 6380)


async def test_what_is_no_id_in_a_set_or_a_key_is_passed_over(
    redis: Server, redis_url: str
) -> None:
    store = await connect(redis_url, SHOP, create=True)
    prefix = redis_url.rpartition("prefix=")[2]
    await store.put_items(ids(3, 67), random_rows(SHOP, 2))
    await store.append(5, [1])
    plain = redis.client()
    plain.sadd(f"{prefix}:ids:{{3}}", "x", "-3", str(2**70))
    plain.rpush(f"{prefix}:h:{{abc}}", "1")
    seen = np.concatenate([batch.ids async for batch in store.scan_items()])
    assert sorted(seen.tolist()) == [3, 67]
    assert await store.count_histories() == 1
    assert [list(users) async for users in store.scan_histories() if users] == [[5]]
    assert store.odd_replies == 3
    await store.close()


async def test_a_write_that_was_not_sent_is_told_from_one_whose_answer_is_lost() -> None:
    """At most once: only the second may have been applied."""
    loop = asyncio.get_running_loop()
    push = Command(("LPUSH", b"k", 1), b"k", again=False)
    async with scripted(lambda parts: Raw(b"")) as port:  # never answers
        nodes = Standalone(parse(f"redis://127.0.0.1:{port}"), 5.0, FaultLog())
        await nodes.ready()
        [lost] = await nodes.call([push], loop.time() + 0.3)
        assert isinstance(lost, StoreUnavailable)
        assert lost.unknown
        await nodes.close()
    nodes = Standalone(parse(f"redis://127.0.0.1:{port}"), 5.0, FaultLog())
    [unsent] = await nodes.call([push], loop.time() + 0.3)
    assert isinstance(unsent, StoreUnavailable)
    assert not unsent.unknown
    await nodes.close()
