"""What a Redis server that answers may refuse, brought about and taken back on a real one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from redis import RedisError

from tests.feature_store.redis_servers import Server, until

LOADED_PER_S = 10_000  # keys, at the delay below
LOAD_DELAY = ["--key-load-delay", "100", "--loading-process-events-interval-bytes", "1024"]


@contextlib.contextmanager
def another_password(server: Server) -> Iterator[None]:
    """Changed under those who are connected, who are then thrown out."""
    server.client().config_set("requirepass", "another")
    server.password = "another"
    server.client().client_kill_filter(_type="normal", skipme=True)
    yield
    server.client().config_set("requirepass", "")
    server.password = None


@contextlib.contextmanager
def loading(server: Server, seconds: float = 5.0) -> Iterator[None]:
    """Restarted, and so long busy reading what was saved."""
    link = server.client()
    link.execute_command("DEBUG", "POPULATE", int(LOADED_PER_S * seconds), "populated")
    link.save()
    server.kill()
    server.options += LOAD_DELAY
    server.start_without_waiting()
    until(lambda: is_loading(server), "the server to load")
    yield
    del server.options[-len(LOAD_DELAY) :]
    with contextlib.suppress(RedisError):
        server.client().config_set("key-load-delay", 0)
    until(lambda: server.client().ping(), "the server to have loaded")


def is_loading(server: Server) -> bool:
    return bool(server.client().info("persistence")["loading"])


@contextlib.contextmanager
def read_only(server: Server) -> Iterator[None]:
    """A replica, of a master that is not there."""
    server.client().execute_command("REPLICAOF", "127.0.0.1", "1")
    yield
    server.client().execute_command("REPLICAOF", "NO", "ONE")


@contextlib.contextmanager
def out_of_memory(server: Server) -> Iterator[None]:
    server.client().config_set("maxmemory", 1)
    yield
    server.client().config_set("maxmemory", 0)


@contextlib.contextmanager
def histories_of_another_type(server: Server, users: Sequence[int]) -> Iterator[None]:
    """Strings where lists are expected."""
    link, keys = server.client(), [f"qin:h:{{{user}}}" for user in users]
    kept = [link.lrange(key, 0, -1) for key in keys]
    for key in keys:
        link.set(key, "not a list")
    yield
    for key, history in zip(keys, kept, strict=True):
        link.delete(key)
        link.rpush(key, *history)


@contextlib.contextmanager
def damaged_items(server: Server, items: Sequence[int], partitions: int = 64) -> Iterator[None]:
    """Noise and records of a newer format, by turns; the change log tells of them."""
    link, keys = server.client(), [f"qin:i:{{{item % partitions}}}:{item}" for item in items]
    kept = [link.get(key) for key in keys]
    tell = " ".join(map(str, items))
    for number, (key, record) in enumerate(zip(keys, kept, strict=True)):
        link.set(key, b"noise" if number % 2 else record[:2] + b"\xc8" + record[3:])
    link.xadd("qin:changes", {"ids": tell})
    yield
    for key, record in zip(keys, kept, strict=True):
        link.set(key, record)
    link.xadd("qin:changes", {"ids": tell})


ServerFault = Callable[[Server], contextlib.AbstractContextManager[None]]


@contextlib.asynccontextmanager
async def brought_about(fault: ServerFault, server: Server) -> AsyncIterator[None]:
    """Beside a running event loop."""
    made = fault(server)
    await asyncio.to_thread(made.__enter__)
    try:
        yield
    finally:
        await asyncio.to_thread(made.__exit__, None, None, None)
