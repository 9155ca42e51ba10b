"""Callers in a closed loop: ready-made bytes out, a status in, and again at once."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from time import perf_counter

PROBE = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
PROBE_EVERY_S = 0.05
AGAIN_S = 0.002  # after a connection that broke
CALLERS_NICE = 10  # more than the generator's and the prober's


@dataclass
class Called:
    """What became of them."""

    statuses: Counter[int] = field(default_factory=Counter)  # 0: the connection broke
    probes: list[float] = field(default_factory=list)  # seconds, connecting included
    seconds: float = 0.0


def request_bytes(method: str, path: str, body: bytes = b"", length: int | None = None) -> bytes:
    """``length``: announced, if it is not the body's own."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % (length or len(body)) + body


@contextmanager
def calling(port: int, requests: Sequence[bytes], callers: int, core: int) -> Iterator[Called]:
    """Call beside the block, and probe, from processes of their own on ``core``; what is yielded is
    filled in at its end.

    The callers take what the load generator and the prober leave of the core: both measure the
    service, not how they share a core with 32 senders of megabytes.
    """
    context = multiprocessing.get_context("spawn")
    found, ends, processes = Called(), list[Connection](), []
    for work in ((port, list(requests), callers), (port, [], 0)):
        ours, theirs = context.Pipe()
        process = context.Process(target=_process, args=(*work, core, theirs))
        process.start()
        ours.recv()  # they have begun
        ends.append(ours)
        processes.append(process)
    try:
        yield found
    finally:
        for end in ends:
            end.send(None)
        called, probed = (end.recv() for end in ends)
        for process in processes:
            process.join()
        found.statuses, found.seconds, found.probes = called.statuses, called.seconds, probed.probes


def _process(
    port: int, requests: list[bytes], callers: int, core: int, control: Connection
) -> None:
    os.sched_setaffinity(0, {core})
    if callers:
        os.nice(CALLERS_NICE)
    asyncio.run(_call(port, requests, callers, control))


async def _call(port: int, requests: list[bytes], callers: int, control: Connection) -> None:
    """Call with so many callers, or probe if there are none."""
    found, began = Called(), perf_counter()
    tasks = [asyncio.create_task(_caller(port, requests, n, found)) for n in range(callers)]
    if not callers:
        tasks.append(asyncio.create_task(_prober(port, found)))
    control.send(None)
    await asyncio.to_thread(control.recv)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    found.seconds = perf_counter() - began
    control.send(found)


async def _caller(port: int, requests: list[bytes], number: int, found: Called) -> None:
    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                kept = True
                while kept:
                    number += 1
                    writer.write(requests[number % len(requests)])
                    status, kept = await _answer(reader)
                    found.statuses[status] += 1
            finally:
                writer.close()
        except (OSError, asyncio.IncompleteReadError):
            found.statuses[0] += 1
            await asyncio.sleep(AGAIN_S)


async def _prober(port: int, found: Called) -> None:
    while True:
        began = perf_counter()
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(PROBE)
                status, _ = await _answer(reader)
                writer.close()
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            status = 0
        found.probes.append(perf_counter() - began if status == 200 else float("inf"))
        await asyncio.sleep(PROBE_EVERY_S)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Status, and whether the connection goes on."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
    await reader.readexactly(length)
    return int(head[9:12]), b"connection: close" not in head
