"""What too much costs. ``python -m tests.service.measure_oversized [--json]``.

A thousand attempts, 20 at a time, to send more than is taken: bodies of 64 MB announced and in
chunks, headers without end, too many of them, paths, trailers, requests by the thousand, and what
is no HTTP. Each sends on until the other end is closed. The service's peak of resident memory is
the kernel's own (``VmHWM``), set back after a warm-up.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import orjson
import typer

from tests.service.process import Service, serving
from tests.service.wire import GET, POST, responses
from tests.service.world import World, make_world

EXPECTED = {400, 413, 431}
ALLOWED_MB = 20.0
AT_ONCE = 20
MANY = 64 * 2**20
PIECE = b"x" * 65_536


def _repeated(piece: bytes, total: int) -> Iterator[bytes]:
    return itertools.repeat(piece, -(-total // len(piece)))


def attempts() -> dict[str, list[bytes]]:
    """By name: how it begins, and what follows for 64 MB."""
    chunk = b"10000\r\n%s\r\n" % PIECE
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    return {
        "announced body": [POST + b"Content-Length: %d\r\n\r\n" % MANY, PIECE],
        "chunked body": [POST + chunked, chunk],
        "body of tiny chunks": [POST + chunked, b"1\r\nx\r\n" * 10_000],
        "body where none belongs": [GET[:-2] + b"Content-Length: %d\r\n\r\n" % MANY, PIECE],
        "endless header": [POST + b"X: ", PIECE],
        "endless headers": [POST, b"X: y\r\n" * 10_000],
        "endless path": [b"GET /", PIECE],
        "endless trailer": [POST + chunked + b"1\r\n{\r\n0\r\nX: ", PIECE],
        "endless chunk extension": [POST + chunked + b"1;x=", PIECE],
        "no HTTP": [b"\x16\x03\x01", PIECE],
    }


async def attempt(service: Service, begin: bytes, then: bytes) -> int:
    """The status of the answer; 0 without one."""
    reader, writer = await asyncio.open_connection(service.host, service.port)
    sending = asyncio.create_task(_send(writer, begin, then))
    said = b""
    try:
        async with asyncio.timeout(30):
            while data := await reader.read(65_536):
                said += data
    except ConnectionError:
        pass  # what was read before counts
    sending.cancel()
    writer.close()
    return responses(said)[0].status if said else 0


async def _send(writer: asyncio.StreamWriter, begin: bytes, then: bytes) -> None:
    try:
        writer.write(begin)
        for piece in _repeated(then, MANY):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        return


async def _round(service: Service, count: int) -> dict[str, Counter[int]]:
    room, found = asyncio.Semaphore(AT_ONCE), {name: Counter[int]() for name in attempts()}

    async def one(name: str, begin: bytes, then: bytes) -> None:
        async with room:
            found[name][await attempt(service, begin, then)] += 1

    kinds = itertools.islice(itertools.cycle(attempts().items()), count)
    await asyncio.gather(*(one(name, begin, then) for name, (begin, then) in kinds))
    return found


def measured(world: World, count: int) -> dict[str, Any]:
    with serving(world.models, world.store, QIN_LOG_LEVEL="error") as service:
        body = {"user_id": 1, "candidates": world.ids[:64].tolist()}
        with service.client() as client:
            for _ in range(500):  # arenas and caches have their size
                client.post("/v1/score", json=body).raise_for_status()
        _forget_peak(service)
        before = _memory_mb(service, "VmRSS")
        found = asyncio.run(_round(service, count))
        peak, after = _memory_mb(service, "VmHWM"), _memory_mb(service, "VmRSS")
        healthy = httpx.post(f"{service.url}/v1/score", json=body, trust_env=False).status_code
    return {
        "attempts": count,
        "statuses": {name: dict(statuses) for name, statuses in found.items()},
        "others_than_expected": sum(
            n for s in found.values() for status, n in s.items() if status not in EXPECTED
        ),
        "resident_mb_before": round(before, 1),
        "resident_mb_after": round(after, 1),
        "peak_mb_more": round(peak - before, 1),
        "healthy_after": healthy == 200,
    }


def _forget_peak(service: Service) -> None:
    Path(f"/proc/{service.process.pid}/clear_refs").write_text("5")


def _memory_mb(service: Service, name: str) -> float:
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024 / 1e6


def holds(found: dict[str, Any]) -> bool:
    return (
        found["others_than_expected"] == 0
        and found["peak_mb_more"] <= ALLOWED_MB
        and found["healthy_after"]
    )


def main(
    count: Annotated[int, typer.Option("--attempts", help="How many.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 unless each is a 400, 413 or 431 and memory grew by at most 20 MB meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        found = measured(make_world(Path(folder)), count)
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
    typer.echo(text if as_json else "\n".join(f"{k:24} {v}" for k, v in found.items()))
    raise typer.Exit(int(not holds(found)))


if __name__ == "__main__":
    typer.run(main)
