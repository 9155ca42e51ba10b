"""Real generators, real sockets: every request ends in one bucket, whatever the server does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from loadtest.analysis.results import summarise
from loadtest.analysis.slo import Slo
from loadtest.experiments.stub_process import StubProcess
from loadtest.generator.columns import Bucket, Reason
from loadtest.generator.runner import Load, execute
from loadtest.generator.schedule import Arrivals
from loadtest.generator.workload import Workload

SMALL = Workload(users="1..50", items="1..200", candidates="4", distinct=500)


def small_load(url: str, **changes: Any) -> Load:
    return replace(Load(url, rate=300, seconds=0.6, warmup=0, workload=SMALL), **changes)


def measured(load: Load) -> dict[str, Any]:
    with execute(load) as run:
        result = summarise(run, [Slo.parse("p99=1s")])
        columns = run.columns
        assert sum(result["buckets"].values()) == run.count == columns.requests - run.first
        known = ~np.isnan(columns.done)
        clocks = np.stack([columns.at, columns.attended, columns.sent, columns.done])[:, known]
        assert (np.nan_to_num(np.diff(clocks, axis=0)) >= 0).all(), "the clocks run backwards"
        return result


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does to each connection whatever ``answer`` does."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    stopped = threading.Event()

    def serve() -> None:
        listener.settimeout(0.1)
        while not stopped.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(5)
            threading.Thread(target=handle, args=(connection,), daemon=True).start()

    def handle(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            answer(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stopped.set()
        thread.join()
        listener.close()


def silent(connection: socket.socket) -> None:
    """Reads the request and says nothing for two seconds."""
    connection.recv(1 << 20)
    threading.Event().wait(2)


def test_an_honest_service_is_answered_ok_by_every_clock(quick_stub: StubProcess) -> None:
    result = measured(small_load(quick_stub.url, stages=True, warmup=0.3))
    assert result["buckets"]["ok"] == result["requests"]
    assert result["verdict"] in ("pass", "undecided")
    assert result["clocks_ms"]["service"]["p50"] >= 5
    assert result["versions"] == {"stub-1": result["requests"]}
    assert result["stages"]["mean_ms"]["engine"] == pytest.approx(5, rel=0.01)
    assert result["stages"]["unaccounted_share"] <= 0.05
    assert result["generators"][0]["connections_opened"] < 40


def test_several_generators_share_one_schedule(quick_stub: StubProcess) -> None:
    result = measured(small_load(quick_stub.url, generators=3, stages=True))
    assert result["buckets"]["ok"] == result["requests"]
    assert len(result["generators"]) == 3
    assert result["versions"] == {"stub-1": result["requests"]}


def test_shed_requests_are_neither_slow_nor_failed() -> None:
    with StubProcess(service="constant:20ms", servers=1, queue=2) as stub:
        result = measured(small_load(stub.url))
    assert result["buckets"]["shed"] == stub.counts["shed"] > 50
    assert result["buckets"]["ok"] + result["buckets"]["shed"] == result["requests"]
    assert result["shed_ms"]["p50"] < result["latency_ms"]["corrected"]["p50"]


def test_an_error_status_is_a_failure_with_its_status() -> None:
    with StubProcess(service="constant:1ms", servers=0, fail_every=10) as stub:
        result = measured(small_load(stub.url))
    assert result["buckets"]["failed"] == stub.counts["failed"] == result["statuses"]["500"]
    assert result["reasons"] == {"status": stub.counts["failed"]}


def test_nobody_listening_is_a_failure_to_connect() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = measured(small_load(f"http://127.0.0.1:{port}", rate=50))
    assert result["buckets"]["failed"] == result["requests"]
    assert result["reasons"] == {"connect": result["requests"]}
    assert result["verdict"] == "fail"


def test_silence_is_a_timeout_and_its_connection_is_given_up() -> None:
    with raw_server(silent) as url:
        result = measured(small_load(url, rate=50, seconds=0.6, timeout=0.3))
    assert result["buckets"]["timed_out"] == result["requests"]
    assert result["reasons"] == {"deadline": result["requests"]}
    assert result["latency_ms"]["corrected"]["p50"] == pytest.approx(300, abs=60)


def test_too_few_connections_leave_requests_unsent_in_time() -> None:
    with raw_server(silent) as url:
        load = small_load(url, rate=50, timeout=0.3, connections=2, seed=2)
        result = measured(replace(load, arrivals=Arrivals.parse("bursts:20")))
    assert result["buckets"]["unsent"] + result["buckets"]["timed_out"] == result["requests"]
    assert result["reasons"]["no_connection"] == result["buckets"]["unsent"] > 5


def closing(status: int, body: bytes = b"") -> bytes:
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("reply", "bucket", "reason"),
    [
        (b"", "failed", "reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", "failed", "reset"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "failed", "malformed_http"),
        (
            b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
            "failed",
            "malformed_http",
        ),
        (closing(200, b"{}"), "wrong", "body"),
        (closing(200, b"null"), "wrong", "body"),
        (closing(504), "timed_out", "status_504"),
        (closing(302), "failed", "status"),
    ],
)
def test_each_way_of_going_wrong_has_its_bucket_and_reason(
    reply: bytes, bucket: str, reason: str
) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 20)
        connection.sendall(reply)

    with raw_server(answer) as url:
        result = measured(small_load(url, rate=60, seconds=0.5))
    assert result["buckets"][bucket] == result["requests"]
    assert result["reasons"] == {reason: result["requests"]}


def test_a_kept_connection_that_the_server_closes_later_is_no_second_answer() -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(1 << 20)
        connection.sendall(b"HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n")
        threading.Event().wait(0.002)  # it is idle by now

    with raw_server(answer) as url:
        load = small_load(url, rate=40, seconds=0.5, arrivals=Arrivals.parse("constant"))
        result = measured(load)
    assert result["buckets"]["failed"] == result["requests"]


def test_chunked_and_interim_answers_are_understood() -> None:
    body = b'{"model_version":"v","item_ids":[1,2,3,4],"scores":[0.1,0.2,0.3,null]}'

    def answer(connection: socket.socket) -> None:
        while data := connection.recv(1 << 20):
            asked = data.split(b'"candidates":')[1].split(b"]")[0] + b"]"
            told = body.replace(b"[1,2,3,4]", asked)
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for part in (told[:9], told[9:]):
                connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            connection.sendall(b"0\r\n\r\n")

    with raw_server(answer) as url:
        result = measured(small_load(url, rate=60, seconds=0.5))
    assert result["buckets"]["ok"] == result["requests"]
    assert result["versions"] == {"v": result["requests"]}


def test_a_large_body_goes_out_in_pieces(quick_stub: StubProcess) -> None:
    wide = Workload(users="1..50", items="1..100000", candidates="60000", distinct=3)
    result = measured(small_load(quick_stub.url, rate=5, seconds=1.5, workload=wide, seed=3))
    assert result["buckets"]["ok"] == result["requests"] > 0


def test_clicks_are_sent_to_the_events_route(quick_stub: StubProcess) -> None:
    clicks = replace(SMALL, events=0.4)
    with StubProcess(service="constant:1ms", servers=0) as stub:
        result = measured(small_load(stub.url, workload=clicks))
    assert result["events"] == stub.counts["events"] > 20
    assert result["buckets"]["ok"] == result["requests"]


def test_the_raw_rows_explain_every_unsent_request(quick_stub: StubProcess) -> None:
    stop_after = 0.4

    def stop(start: float, over: threading.Event) -> None:
        over.wait(stop_after)
        import _thread

        _thread.interrupt_main()

    with execute(small_load(quick_stub.url, seconds=3.0), background=stop) as run:
        result = summarise(run)
        unsent = run.columns.bucket == Bucket.UNSENT
        assert (run.columns.reason[unsent] == Reason.STOPPED).all()
    assert result["verdict"] == "invalid"
    assert result["interrupted_after_s"] < 2
    assert 0 < result["buckets"]["ok"] < result["requests"] == sum(result["buckets"].values())
