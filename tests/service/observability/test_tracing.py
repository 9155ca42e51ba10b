"""Spans are the timings record's own, and hang where the caller's trace says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from service.context import OTHER, STAGES
from service.observability.tracing import Traces
from service.settings import Settings
from tests.service.in_process import client_of, opened
from tests.service.world import World

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET_USER = 998877665544


async def spans_of(
    world: World, sample: float, *, path: str = "/v1/score", **headers: str
) -> tuple[httpx.Response, list[ReadableSpan]]:
    """What one request leaves behind."""
    exporter = InMemorySpanExporter()
    traces = Traces(SimpleSpanProcessor(exporter), sample)
    body = {"user_id": SECRET_USER, "candidates": world.ids[:3].tolist()}
    async with opened(world) as state, client_of(replace(state, traces=traces)) as client:
        answer = await client.post(path, json=body, headers=headers)
    return answer, list(exporter.get_finished_spans())


async def test_a_request_is_a_span_and_its_stages_are_spans_end_to_end(world: World) -> None:
    answer, spans = await spans_of(world, 1.0)
    *stages, root = spans
    assert root.name == "POST /v1/score"
    assert root.kind is SpanKind.SERVER
    assert root.parent is None
    attributes = root.attributes or {}
    assert attributes["http.response.status_code"] == 200
    assert attributes["qin.request_id"] == answer.headers["X-Request-Id"]
    assert attributes["qin.candidates"] == 3
    assert str(SECRET_USER) not in "".join(span.to_json() for span in spans)
    assert {s.name for s in stages} <= {*STAGES, OTHER}
    assert {"parse", "store", "rank", "encode"} <= {s.name for s in stages}
    at = root.start_time
    for stage in stages:
        assert stage.parent is not None
        assert stage.parent.span_id == root.context.span_id
        assert stage.start_time == at
        at = stage.end_time
    assert at is not None
    assert root.end_time is not None
    assert abs(at - root.end_time) < 1000 * len(stages)  # ns: the stages sum to the total


@pytest.mark.parametrize(("flags", "recorded"), [("01", True), ("00", False)])
async def test_the_callers_trace_goes_on_and_decides(
    world: World, flags: str, recorded: bool
) -> None:
    sample = 0.0 if recorded else 1.0  # the other way round for those who have no caller
    _, spans = await spans_of(world, sample, traceparent=f"00-{TRACE}-{PARENT}-{flags}")
    assert bool(spans) is recorded
    if recorded:
        root = spans[-1]
        assert f"{root.context.trace_id:032x}" == TRACE
        assert root.parent is not None
        assert f"{root.parent.span_id:016x}" == PARENT


@pytest.mark.parametrize("header", ["", "00-0-0-01", f"00-{'0' * 32}-{PARENT}-01", "x" * 10_000])
async def test_a_malformed_traceparent_is_nobodys(world: World, header: str) -> None:
    answer, spans = await spans_of(world, 1.0, traceparent=header)
    assert answer.status_code == 200
    assert spans[-1].parent is None


async def test_a_share_of_none_records_nothing(world: World) -> None:
    _, spans = await spans_of(world, 0.0)
    assert spans == []


async def test_a_path_that_is_not_there_gives_no_name_of_its_own(world: World) -> None:
    _, spans = await spans_of(world, 1.0, path="/no/such/path")
    (root,) = spans
    assert root.name == "POST unmatched"
    assert root.status.status_code is StatusCode.UNSET
    assert (root.attributes or {})["error.type"] == "not-found"


@contextmanager
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """Where spans are sent: its address, and what it was sent."""
    received: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", received
        finally:
            server.shutdown()


async def test_spans_are_sent_to_the_collector_before_the_service_ends(world: World) -> None:
    body = {"user_id": 1, "candidates": world.ids[:3].tolist()}
    with collector() as (url, received):
        async with (
            opened(world, trace_url=url, trace_sample=1.0) as state,
            client_of(state) as client,
        ):
            await client.post("/v1/score", json=body)
    sent = [ExportTraceServiceRequest.FromString(content) for content in received]
    names = {
        span.name
        for request in sent
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
    assert {"POST /v1/score", "rank"} <= names


async def test_a_collector_that_is_away_takes_nothing_from_the_answers(world: World) -> None:
    body = {"user_id": 1, "candidates": world.ids[:3].tolist()}
    async with (
        opened(world, trace_url="http://127.0.0.1:9/v1/traces", trace_sample=1.0) as state,
        client_of(state) as client,
    ):
        assert (await client.post("/v1/score", json=body)).status_code == 200


def test_the_address_is_checked_when_the_service_starts() -> None:
    with pytest.raises(ValueError, match="trace_url"):
        Settings(trace_url="collector:4318")
