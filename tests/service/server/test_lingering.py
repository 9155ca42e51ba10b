"""What a client sends after its refusal is read slowly, and long enough for it to be taken."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from contextlib import suppress
from time import monotonic

import pytest

from service.admission.loop_budget import LoopBudget
from service.server import connections
from service.server import lingering as discarding
from service.server.lingering import Discarding
from service.server.protocol import HttpProtocol
from tests.service.engine_gate import FAR
from tests.service.in_process import opened
from tests.service.live import listening, until
from tests.service.process import Service
from tests.service.wire import GET, POST, connected, only_response, responses
from tests.service.world import World

MB = 10**6
MOST_A_SECOND = 32 * MB
FIRST_READS = 3 * 2**18  # of one connection: with its head, before its answer, after it
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
WITHOUT_END = {
    "a body that is announced": (POST + b"Content-Length: 900000000\r\n\r\n", b"x" * 65_536),
    "a body in chunks": (CHUNKED, b"10000\r\n%b\r\n" % (b"x" * 65_536)),
    "a header": (POST + b"X: ", b"x" * 65_536),
    "no HTTP": (b"\x16\x03\x01", b"x" * 65_536),
    "bytes after the last request": (GET[:-2] + b"Connection: close\r\n\r\n", b"x" * 65_536),
}


class Sender:
    """A client that sends without end; ``said`` is what it was answered."""

    def __init__(self, begin: bytes, then: bytes) -> None:
        self._begin, self._then, self.said, self.since = begin, then, b"", 0.0

    async def run(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sending = asyncio.create_task(self._send(writer))
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                self.said += data
        await sending
        writer.close()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(self._begin)
            while True:
                writer.write(self._then)
                await writer.drain()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Bytes that the service's connections have read."""
    found, received = Counter[str](), HttpProtocol.data_received

    def data_received(connection: HttpProtocol, data: bytes) -> None:
        found["bytes"] += len(data)
        received(connection, data)

    monkeypatch.setattr(HttpProtocol, "data_received", data_received)
    return found


@pytest.mark.parametrize("beside_scoring", [False, True])
@pytest.mark.parametrize("name", WITHOUT_END)
async def test_what_follows_a_refusal_is_read_at_a_bounded_pace(
    world: World,
    counted: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    beside_scoring: bool,
) -> None:
    """Also while the refusal waits to be sent."""
    monkeypatch.setattr(LoopBudget, "is_quiet", not beside_scoring)
    senders = [Sender(*WITHOUT_END[name]) for _ in range(8)]
    async with opened(world) as state, listening(state) as port:
        state.budget._faults.level = -0.1 if beside_scoring else 0.0
        began = monotonic()
        async with asyncio.timeout(FAR):
            await asyncio.gather(*(sender.run(port) for sender in senders))
        seconds = monotonic() - began
        # Up to the limits bodies are read as fast as they come.
        allowed = len(senders) * (FIRST_READS + 2 * state.settings.max_body_bytes)
    expected = {200} if "last request" in name else {400, 413, 429, 431}
    assert {response.status for s in senders for response in responses(s.said)} <= expected
    assert all(sender.said for sender in senders)
    assert counted["bytes"] <= MOST_A_SECOND * seconds + allowed


@pytest.mark.parametrize("size", [10_000, 300_000, 1_500_000, 4 * MB, 16 * MB])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_sends_all_of_its_body_first_receives_the_413(
    service: Service, size: int, chunked: bool
) -> None:
    length = max(size, 2 * MB)
    begin = POST + b"Content-Length: %d\r\n\r\n" % length
    with connected(service) as connection:
        with suppress(ConnectionError):  # the largest take longer than it lingers
            connection.sendall(
                CHUNKED + b"%x\r\n" % length + b"x" * size if chunked else begin + b"x" * size
            )
        response = only_response(connection)
    assert (response.status, response.problem) == (413, "too-large")


async def test_all_of_a_body_of_4_mb_is_taken_from_clients_that_send_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow the machine: with more time to linger."""
    monkeypatch.setattr(connections, "LINGER_S", FAR)
    body = b"x" * (4 * MB)

    def sent_first(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), FAR) as connection:
            connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            return b"".join(iter(lambda: connection.recv(65_536), b""))

    async with opened(world) as state, listening(state) as port:
        said = await asyncio.gather(*(asyncio.to_thread(sent_first, port) for _ in range(4)))
    assert [response.status for one in said for response in responses(one)] == 4 * [413]


async def test_the_end_of_one_is_noticed_beside_others_that_stay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LINGER_S", FAR)
    async with opened(world) as state, listening(state) as port:
        writers = []
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            writer.write(b"\x16\x03\x01")
            assert await reader.read()

        def lingering() -> float:
            labels = {"port": "service", "state": "lingering"}
            return state.metrics.registry.get_sample_value("qin_connections", labels) or 0.0

        await until(lambda: lingering() == len(writers))
        writers.pop().close()
        await until(lambda: lingering() == len(writers))
        for writer in writers:
            writer.close()
        await until(lambda: not lingering())


class Flow:
    """Of a connection whose client sends nothing."""

    def __init__(self) -> None:
        self.reads, self.turns = False, 0

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True
        self.turns += 1


async def test_connections_read_in_turn_and_one_that_has_ended_does_not() -> None:
    discarding, flows = Discarding(asyncio.get_running_loop()), [Flow() for _ in range(5)]
    for flow in flows:
        discarding.add(flow)
    await until(lambda: all(flow.turns >= 3 for flow in flows))
    assert sum(flow.reads for flow in flows) == 1
    assert max(flow.turns for flow in flows) - min(flow.turns for flow in flows) <= 1
    ended, *rest = flows
    discarding.remove(ended)
    turns = ended.turns
    await until(lambda: all(flow.turns >= 6 for flow in rest))
    assert ended.turns == turns
    for flow in rest:
        discarding.remove(flow)
    await until(lambda: discarding._timer is None)


async def test_after_a_large_read_the_others_wait() -> None:
    loop, first, seen = asyncio.get_running_loop(), Flow(), list[tuple[float, bool]]()

    class Second(Flow):
        def resume_reading(self) -> None:
            super().resume_reading()
            seen.append((loop.time(), first.reads))

    second = Second()
    paced = Discarding(loop)
    paced.add(first)
    paced.add(second)
    began = loop.time()
    paced.read(first, MB)
    await until(lambda: second.turns)
    at, first_reads = seen[0]
    assert at - began >= 0.9 * MB * discarding.A_BYTE_S / discarding.SHARE
    assert not first_reads
    paced.remove(first)
    paced.remove(second)
