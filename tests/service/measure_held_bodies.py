"""What connections cost that hold back the last byte of a large body.

    python -m tests.service.measure_held_bodies [--connections 900] [--json]

Each sends all but the last byte of 1 MB and waits; beside them healthy requests are asked. Resident
memory is read before, meanwhile and afterwards.
"""

from __future__ import annotations

import resource
import socket
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from tests.service.process import Service, serving
from tests.service.wire import GET, PATIENT, POST, connected, next_response, responses, until_closed
from tests.service.world import World, make_world

MIB = 2**20
BODY = MIB
# Beyond the bound itself: what is read and not yet counted, and what is joined of one body.
ALLOWED_BESIDE = 64 * MIB
SETTLES_S = 20.0


def resident(service: Service) -> int:
    lines = Path(f"/proc/{service.process.pid}/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return int(kib) * 1024


def measured(world: World, connections: int, bound: int) -> dict[str, Any]:
    variables = {"QIN_MAX_RECEIVING_BYTES": str(bound), "QIN_BODY_TIMEOUT_MS": "60000"}
    with serving(world.models, world.store, **variables) as service:
        for _ in range(50):
            with connected(service) as warming:
                warming.sendall(GET)
                next_response(warming)
        before = peak = resident(service)
        statuses, healthy = Counter[int](), 0
        with ExitStack() as stack:
            held = [stack.enter_context(connected(service)) for _ in range(connections)]
            for connection in held:
                _send(connection)
                peak = max(peak, resident(service))
                with connected(service) as one:
                    one.sendall(GET)
                    healthy += next_response(one).status == 200
            for connection in held:
                connection.settimeout(0.01)
                with suppress(TimeoutError):
                    statuses.update(one.status for one in responses(until_closed(connection)))
        deadline = time.monotonic() + SETTLES_S
        while (after := resident(service)) > before + bound // 2 and time.monotonic() < deadline:
            time.sleep(0.1)
    return {
        "connections": connections,
        "bound_mb": round(bound / 1e6, 1),
        "grew_by_mb": round((peak - before) / 1e6, 1),
        "kept_mb": round((after - before) / 1e6, 1),
        "answered": dict(sorted(statuses.items())),
        "healthy": connections,
        "healthy_answered": healthy,
        "holds": peak - before < bound + ALLOWED_BESIDE
        and after - before <= bound // 2
        and healthy == connections
        and set(statuses) <= {429},
    }


def _send(connection: socket.socket) -> None:
    headers = PATIENT + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % BODY
    with suppress(ConnectionError):  # refused meanwhile
        connection.sendall(POST + headers + b" " * (BODY - 1))


def main(
    connections: Annotated[int, typer.Option(help="That hold back the last byte.")] = 900,
    bound: Annotated[int, typer.Option(help="QIN_MAX_RECEIVING_BYTES.")] = 64 * MIB,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when memory grew beyond the bound and 64 MiB, more than half of the bound was
    kept afterwards, or a healthy request failed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, connections + 200)), hard))
    with tempfile.TemporaryDirectory() as folder:
        found = measured(make_world(Path(folder)), connections, bound)
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
    typer.echo(text if as_json else "\n".join(f"{k:18} {v}" for k, v in found.items()))
    raise typer.Exit(int(not found["holds"]))


if __name__ == "__main__":
    typer.run(main)
