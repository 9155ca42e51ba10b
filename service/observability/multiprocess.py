"""Multiprocess metrics: each worker keeps a snapshot file; a scrape of any worker merges them all.

A file is named by the worker's number, and the successor of a dead worker starts from its counters,
so that sums never fall and files do not pile up. The scraped worker first asks the others, over
datagram sockets in the same folder, to write, and then reads the files alone. A killed worker loses
the counts since its last write: at most ``WRITE_EVERY_S`` of them.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from service.observability.background import begin, failed, keep
from service.observability.exposition import (
    Family,
    Snapshot,
    Turn,
    Writer,
    at_once,
    exposition_in_turns,
    merge,
)
from service.observability.logs import logger
from service.observability.metrics import Metrics

WRITE_EVERY_S = 2.0
ABSENT_AFTER_S = 10.0  # without a write: its gauges are gone, its counters stay
ANSWER_TIMEOUT_S = 0.2  # of other workers, during a scrape


class MultiprocessExporter:
    """This worker's part. ``async with`` keeps its file up to date; ``render`` merges all files."""

    def __init__(self, metrics: Metrics, folder: Path, worker: int) -> None:
        """``folder`` belongs to one service and is new when that starts; best in memory. Its
        path is short: an address of a socket has 107 bytes."""
        self._registry, self._writer, self._folder = metrics.registry, Writer(metrics), folder
        self._file, self._address = folder / f"{worker}.metrics", folder / f"{worker}.sock"
        self._carried: list[Family] = []  # counters of earlier workers of this number
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._awaited: dict[bytes, tuple[set[str], asyncio.Event]] = {}  # by question

    async def __aenter__(self) -> MultiprocessExporter:
        if self._file.exists():
            self._carried = Snapshot.read(self._file.read_bytes()).counters()
        self._address.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self._address))
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._received)
        await self.write()
        self._own(keep("metrics", self._keep_written))
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()
        self._address.unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.write(leaving=True)

    async def render(self, turn: Turn = at_once) -> bytes:
        """The metrics of all workers, in Prometheus's text format."""
        await asyncio.gather(self.write(), self._others_written())
        parts = list[list[Family]]()
        for path in sorted(self._folder.glob("*.metrics")):
            await turn()
            snapshot = Snapshot.read(path.read_bytes())
            absent = snapshot.age() >= ABSENT_AFTER_S
            parts.append(snapshot.counters() if absent else snapshot.families)
        await turn()
        return await exposition_in_turns(merge(parts), turn)

    async def write(self, *, leaving: bool = False) -> None:
        """Replace the file. Requests run between any two metrics."""
        async with self._writing:
            families = []
            for metric in self._registry.collect():
                families.append(self._writer.family(metric))
                await asyncio.sleep(0)
            snapshot = Snapshot.now(merge([families, self._carried]), leaving=leaving)
            temporary = self._file.with_suffix(".new")
            temporary.write_bytes(snapshot.content())
            os.replace(temporary, self._file)

    async def _keep_written(self) -> None:
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            try:
                await self.write()
            except OSError:  # a full disk, for example: the next write may succeed
                failed("metrics", "cannot write the metrics file")

    async def _others_written(self) -> None:
        """Ask every other worker to write, and wait for those that could be asked."""
        query, all_written = os.urandom(8), asyncio.Event()
        asked = {
            str(address)
            for address in self._folder.glob("*.sock")
            if address != self._address and self._send(b"?" + query, str(address))
        }
        if not asked:
            return
        self._awaited[query] = asked, all_written
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await all_written.wait()
        except TimeoutError:
            logger.warning("workers did not write their metrics in time", workers=sorted(asked))
        finally:
            del self._awaited[query]

    def _received(self) -> None:
        while True:
            try:
                message, address = self._socket.recvfrom(64)
            except BlockingIOError:
                return
            kind, query = message[:1], message[1:]
            if kind == b"?":
                self._own(begin("metrics", self._write_and_reply(query, address)))
            elif query in self._awaited:
                asked, all_written = self._awaited[query]
                asked.discard(address)
                if not asked:
                    all_written.set()

    async def _write_and_reply(self, query: bytes, address: str) -> None:
        await self.write()
        self._send(b"!" + query, address)

    def _send(self, message: bytes, address: str) -> bool:
        """Whether it was delivered: a dead worker's socket refuses."""
        try:
            self._socket.sendto(message, address)
        except OSError:
            return False
        return True

    def _own(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
