"""What the limits on receiving cost. ``python -m tests.service.bench_receiving [--json]``.

One process serves the same application twice: through our connections, and through uvicorn's
protocol as it is. One client asks them in turn, a block of requests each, over one connection each.
What is compared is the processor time of the event loop's thread, so that neighbours on the machine
do not matter; the ratio is the median over the pairs of neighbouring blocks.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import orjson
import typer
import uvicorn
import uvloop
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service.api.app import create_app
from service.observability import logs
from service.processes.run import http_servers
from service.server.listener import Listener, listen
from tests.service.in_process import opened
from tests.service.traffic import Answer, contents, request_of
from tests.service.wire import GET
from tests.service.world import World, make_world

BLOCK = 200
app = typer.Typer(add_completion=False)


async def _serve(world: World, folder: Path) -> None:
    """Tells the two ports, and goes on until it is ended."""
    async with opened(world, private=folder / "private", keep_alive_s=1000) as state:
        ports, loop = http_servers(state), asyncio.get_running_loop()
        ours, theirs = listen("127.0.0.1", 0, ""), listen("127.0.0.1", 0, "")
        Listener(ours, ports.service.enter).open()
        config, shared = _configuration(create_app(state)), ServerState()
        await loop.create_server(lambda: HttpToolsProtocol(config, shared, {}), sock=theirs)
        example = orjson.dumps([body.decode() for body in contents(world, 50)]).decode()
        print(ours.getsockname()[1], theirs.getsockname()[1], example, flush=True)
        await asyncio.Event().wait()


def _configuration(application: ASGIApp) -> uvicorn.Config:
    config = uvicorn.Config(
        application,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        proxy_headers=False,
        timeout_keep_alive=1000,
    )
    config.load()
    return config


def _block(connection: socket.socket, requests: list[bytes], loop: Path) -> float:
    """Processor seconds of the event loop per request."""
    before = _ran(loop)
    for number in range(BLOCK):
        connection.sendall(requests[number % len(requests)])
        answer = Answer()
        while not answer.whole:
            answer.parser.feed_data(connection.recv(65_536))
        assert answer.parser.get_status_code() == 200
    return (_ran(loop) - before) / BLOCK


def _ran(loop: Path) -> float:
    return int(loop.read_text().split()[0]) / 1e9


def compared(ports: list[int], requests: list[bytes], loop: Path, pairs: int) -> dict[str, Any]:
    connections = [socket.create_connection(("127.0.0.1", port)) for port in ports]
    found: tuple[list[float], list[float]] = ([], [])
    for pair in range(pairs + 1):
        for which in ((0, 1), (1, 0))[pair % 2]:
            found[which].append(_block(connections[which], requests, loop))
    ours, theirs = (times[1:] for times in found)  # the first pair warms up
    return {
        "ours_us": round(1e6 * median(ours), 1),
        "uvicorns_us": round(1e6 * median(theirs), 1),
        "ratio": round(median(a / b for a, b in zip(ours, theirs, strict=True)), 3),
        "pairs": pairs,
    }


@app.command()
def main(
    pairs: Annotated[int, typer.Option(help="Blocks of 200 requests at each.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
    serve: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Microseconds per request, one at a time: GET /livez, and a score request of 64 candidates."""
    if serve:
        logs.configure("json", "error")
        world = make_world(Path(serve))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(world, Path(serve)))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.service.bench_receiving", "--serve", folder]
        child = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert child.stdout is not None
        try:
            first, second, bodies = child.stdout.readline().decode().split(" ", 2)
            loop = Path(f"/proc/{child.pid}/schedstat")  # of its first thread
            ports = [int(first), int(second)]
            scores = [request_of(body.encode()) for body in orjson.loads(bodies)]
            found = {
                "livez": compared(ports, [GET], loop, pairs),
                "score": compared(ports, scores, loop, pairs),
            }
        finally:
            child.kill()
            child.wait()
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    typer.echo(text if as_json else "\n".join(f"{k:8} {v}" for k, v in found.items()))


if __name__ == "__main__":
    app()
