"""Whether our framing of HTTP/1.1 is that of h11.

    python -m tests.service.measure_framing [--cases 20000] [--json]

A case is a stream of requests, right or wrong, in segments. The protocol of the service reads them
from a real socket, segment by segment, with an application that records its requests; h11 (server
role) reads the same. Both must find the same requests; or ours finds fewer, refuses what follows
and closes. Valid streams must not be refused. At the end of its segments a client shuts down its
side and reads to the end.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random
from time import perf_counter
from types import SimpleNamespace
from typing import Annotated, Any, cast

import h11
import orjson
import typer
import uvloop
from starlette.types import Receive, Scope, Send

from service.admission.loop_budget import LoopBudget
from service.api.app import error_response, refusals
from service.errors import ServiceError
from service.observability import logs
from service.observability.metrics import Metrics
from service.server.context import Application
from service.server.http_server import HttpServer
from service.server.protocol import HttpProtocol
from service.settings import Settings
from service.state import ServiceState
from tests.service.framing_cases import splits, stream

Request = tuple[bytes, bytes, str, list[tuple[bytes, bytes]], bytes]
AUTHORITY = re.compile(rb"https?://[^/?]*")
ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) (.*?\r\n)\r\n", re.DOTALL)
MOST_SHOWN = 5


class Recorder:
    """An application that answers every request and remembers it."""

    def __init__(self) -> None:
        self.requests = list[Request]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            try:
                message = await receive()
            except ServiceError as error:
                await _answer(send, error.status)
                return
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        target = scope["raw_path"] + query
        headers = [(n, v.lower() if n == b"transfer-encoding" else v) for n, v in scope["headers"]]
        method, version = scope["method"].encode(), scope["http_version"]
        self.requests.append((method, target, version, headers, body))
        await _answer(send, 200)


async def _answer(send: Send, status: int) -> None:
    headers = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class Counting(HttpProtocol):
    """The service's own protocol, which tells how much of what was sent it has read."""

    read = 0

    def data_received(self, data: bytes) -> None:
        self.read += len(data)
        super().data_received(data)


class Judge:
    """Made on an event loop."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        metrics = Metrics()
        budget = LoopBudget(metrics, lambda: 0.0)
        state = SimpleNamespace(settings=Settings(), metrics=metrics, traces=None, budget=budget)
        served = cast(ServiceState, state)
        refuse, respond = refusals(served, public=True), error_response(served)
        application = Application("service", self.recorder, refuse, respond)
        self.context = HttpServer(application, state.settings, metrics).context

    async def ours(self, segments: Sequence[bytes]) -> tuple[list[Request], list[int], bool]:
        """The requests that were executed, every status that was answered, and whether the last of
        them closed."""
        self.recorder.requests = []
        theirs, client = socket.socketpair()
        with client:
            client.setblocking(False)
            theirs.setblocking(False)
            loop = asyncio.get_running_loop()
            factory = lambda: Counting(self.context)  # noqa: E731
            _, protocol = await loop.connect_accepted_socket(factory, theirs)
            sent = 0
            for segment in segments:
                try:
                    client.send(segment)
                except BrokenPipeError:
                    break
                sent += len(segment)
                await _until(lambda: protocol.read >= sent or protocol.state is None)  # noqa: B023
            client.shutdown(socket.SHUT_WR)
            said = b""
            # A reset is an end too: of a connection that was closed while more came.
            with suppress(ConnectionResetError):
                while piece := await loop.sock_recv(client, 65_536):
                    said += piece
        await _until(lambda: protocol.state is None)
        answers = [one for one in ANSWER.findall(said) if one[0] != b"100"]
        closed = bool(answers) and b"\r\nconnection: close\r\n" in answers[-1][1]
        return self.recorder.requests, [int(status) for status, _ in answers], closed

    async def difference(self, segments: Sequence[bytes], *, valid: bool) -> str | None:
        """What is wrong; None: nothing."""
        expected, found = by_h11(segments), await self.ours(segments)
        requests, statuses, closed = found
        refused = [status for status in statuses if status != 200]
        if refused and (valid or len(refused) > 1 or statuses[-1] == 200 or not closed):
            return f"{statuses} for {expected}, the last closing: {closed}"
        if requests == expected:
            return None
        if requests != expected[: len(requests)]:
            return f"ours {requests}, h11's {expected}"
        if not refused:
            return f"{len(requests)} of {len(expected)} executed without a refusal: {statuses}"
        return None


async def _until(condition: Callable[[], bool]) -> None:
    """As often as the event loop turns: there are 100,000 segments."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


def by_h11(segments: Sequence[bytes]) -> list[Request]:
    """The requests that h11 would have a server execute."""
    connection, found = h11.Connection(h11.SERVER), list[Request]()
    request, body = cast(h11.Request, None), b""
    for segment in (*segments, b""):
        connection.receive_data(segment)
        while True:
            try:
                event = connection.next_event()
            except h11.RemoteProtocolError:
                return found
            if event is h11.NEED_DATA:
                break
            match event:
                case h11.Request():
                    request, body = event, b""
                case h11.Data():
                    body += event.data
                case h11.EndOfMessage():
                    target = AUTHORITY.sub(b"", request.target) or b"/"
                    version, headers = request.http_version.decode(), list(request.headers)
                    found.append((request.method, target, version, headers, body))
                    status = 405 if request.method == b"CONNECT" else 200  # 200 would switch
                    answer = h11.Response(status_code=status, headers=[("content-length", "0")])
                    connection.send(answer)
                    connection.send(h11.EndOfMessage())
                    if connection.our_state is h11.MUST_CLOSE:
                        return found
                    connection.start_next_cycle()
                case _:
                    return found
    return found


async def compared(cases: int, seed: int) -> dict[str, Any]:
    random, judge, counts = Random(seed), Judge(), Counter[str]()
    differences, began = list[dict[str, Any]](), perf_counter()
    while counts["cases"] < cases:
        one = stream(random)
        counts["streams"] += 1
        for segments in splits(random, one.data):
            said = await judge.difference(segments, valid=one.valid)
            counts.update(cases=1, valid=one.valid, requests=len(judge.recorder.requests))
            counts.update(upgrades=b"pgrade" in one.data, segments=len(segments))
            if said is not None:
                counts["differences"] += 1
                differences.append({"segments": [str(s) for s in segments], "said": said})
    return {
        **{name: counts[name] for name in ("cases", "streams", "valid", "upgrades", "segments")},
        "requests": counts["requests"],
        "seed": seed,
        "seconds": round(perf_counter() - began, 1),
        "differences": counts["differences"],
        "first": differences[:MOST_SHOWN],
    }


def main(
    cases: Annotated[int, typer.Option(help="Streams in segments.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Of the generator.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print figures as JSON.")] = False,
) -> None:
    """Exit code 1 when there is a difference."""
    logs.configure("json", "error")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(compared(cases, seed))
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode()
    typer.echo(text if as_json else "\n".join(f"{k:12} {v}" for k, v in found.items()))
    raise typer.Exit(int(found["differences"] > 0))


if __name__ == "__main__":
    typer.run(main)
