"""Counts the files and functions that one score request enters.
``python -m tests.service.trace_score --json``.

A service in this process, behind a real socket and on uvloop, serves a small world from an LMDB
store with one engine thread. Once warm, the same ``POST /v1/score`` of 50 candidates is sent
``REQUESTS`` times over one connection, and ``sys.setprofile`` records on every thread each call of
a function whose file is the product's, from the first byte sent to ``AFTER_S`` after the last one
received: what runs after the answer belongs to the request.

A call is one "call" event of the profiler: also each resumption of a coroutine or generator, and
up to Python 3.11 each comprehension. Only figures of one Python version compare. Periodic tasks of
the service fall into some of the recordings; the one with the fewest calls is reported. How often
the item table must look for an id depends on hashes that are random in each process, so the user
and the candidates are those for which a request of their own takes the fewest calls.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import orjson
import structlog
import typer
import uvloop
from rich.console import Console
from rich.table import Table

from tests.service.in_process import opened
from tests.service.live import listening
from tests.service.world import World, make_world

ROOT = f"{Path(__file__).resolve().parents[2]}/"
OURS = tuple(
    f"{ROOT}{room}/"
    for room in ("batch", "feature_store", "model_export", "service", "text", "training")
)
ITEMS, UNKNOWN = 200, 2**62  # in the store; a user who is not
CANDIDATES, HISTORY, WARM, REQUESTS = 50, 6, 50, 20
AFTER_S, PAUSE_S = 0.005, 0.05


@dataclass(frozen=True, slots=True)
class Call:
    thread: str
    depth: int  # of our own functions on the thread's stack
    file: str
    function: str


class Recorder:
    """A profile function for all threads that records calls of our own functions."""

    def __init__(self) -> None:
        self.on = False
        self.calls: list[Call] = []
        self._depths: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        file = frame.f_code.co_filename
        if not self.on or event not in ("call", "return") or not file.startswith(OURS):
            return
        thread = threading.current_thread().name
        if event == "call":
            name = frame.f_code.co_qualname
            self.calls.append(Call(thread, self._depths[thread], file[len(ROOT) :], name))
            self._depths[thread] += 1
        else:
            self._depths[thread] = max(0, self._depths[thread] - 1)

    def start(self) -> None:
        self.calls = []
        self._depths.clear()
        self.on = True

    @contextmanager
    def installed(self) -> Iterator[None]:
        """On this thread and on those that start within the block."""
        threading.setprofile(self)
        sys.setprofile(self)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


class Client:
    """One connection to the service, and the calls that each request on it takes."""

    def __init__(
        self, recorder: Recorder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._recorder, self._reader, self._writer = recorder, reader, writer

    async def calls(self, user: int, candidates: list[int]) -> list[Call]:
        self._recorder.start()
        await self.ask(user, candidates)
        await asyncio.sleep(AFTER_S)
        self._recorder.on = False
        return self._recorder.calls

    async def ask(self, user: int, candidates: list[int]) -> None:
        """Send the request and read its answer, which must score every candidate."""
        body = orjson.dumps({"user_id": user, "candidates": candidates})
        self._writer.write(
            b"POST /v1/score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        answer = orjson.loads(await self._reader.readexactly(int(length)))
        assert b" 200 " in head.partition(b"\r\n")[0], answer
        assert len(answer["scores"]) == len(candidates), answer


async def record(world: World, private: Path) -> list[Call]:
    """The recording with the fewest calls."""
    recorder = Recorder()
    with recorder.installed():
        async with opened(world, private=private) as state, listening(state) as port:
            client = Client(recorder, *await asyncio.open_connection("127.0.0.1", port))
            known = [user for user, history in world.users.items() if len(history) >= HISTORY]
            for user in known:
                await client.ask(user, world.ids.tolist())
            alone = [(len(await client.calls(UNKNOWN, [i])), i) for i in world.ids.tolist()]
            candidates = [i for _, i in sorted(alone)[:CANDIDATES]]
            _, user = min([(len(await client.calls(u, candidates[:1])), u) for u in known])
            for _ in range(WARM):
                await client.ask(user, candidates)
            recordings = []
            for _ in range(REQUESTS):
                await asyncio.sleep(PAUSE_S)
                recordings.append(await client.calls(user, candidates))
    return min(recordings, key=len)


def figures(calls: list[Call]) -> dict[str, Any]:
    by_file = Counter(call.file for call in calls)
    return {
        "files": len(by_file),
        "functions": len({(call.file, call.function) for call in calls}),
        "calls": len(calls),
        "calls_by_thread": Counter(call.thread for call in calls),
        "calls_by_file": dict(by_file.most_common()),
        "python": ".".join(map(str, sys.version_info[:3])),
    }


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    in_order: Annotated[bool, typer.Option("--calls", help="Print the calls in order.")] = False,
) -> None:
    """Counts the files and the functions of the product that one warm score request enters."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    with tempfile.TemporaryDirectory(prefix="trace-") as folder:
        world = make_world(Path(folder) / "world", items=ITEMS)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            calls = runner.run(record(world, Path(folder) / "private"))
    found = figures(calls)
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    if in_order:
        for call in calls:
            print(f"{call.thread:12.12} {'  ' * call.depth}{call.file} {call.function}")
    table = Table("file", "calls")
    for file, count in found["calls_by_file"].items():
        table.add_row(file, str(count))
    Console().print(table)
    print(f"{found['files']} files, {found['functions']} functions, {found['calls']} calls")


if __name__ == "__main__":
    typer.run(main)
