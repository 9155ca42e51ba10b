"""A log whose reader stalls, goes away or comes back costs lines, not answers."""

from __future__ import annotations

import json
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.observability import log_writer
from service.observability.log_writer import LogWriter
from tests.service.process import serving
from tests.service.world import World

PIPE = 65_536  # bytes that a pipe holds
MORE = 600  # requests, with a line of some 300 bytes each
WITHIN_S = 30.0


class Pipe:
    """A named pipe that is read when a test says so."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)

    def read(self, event: str, times: int = 1) -> list[str]:
        """Read lines until this event has come so often; return the events."""
        text, word = b"", f'"event":"{event}"'.encode()
        while text.rpartition(b"\n")[0].count(word) < times:
            assert select.select([self._reader], [], [], WITHIN_S)[0], text[-2000:]
            more = os.read(self._reader, PIPE)
            assert more, text[-2000:]
            text += more
        return [json.loads(line)["event"] for line in text.splitlines()]

    def close(self) -> None:
        os.close(self._reader)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    pipe = Pipe(tmp_path / "log")
    yield pipe
    pipe.close()


def into(pipe: Pipe) -> tuple[str, ...]:
    """A command that writes the log of the one it runs there."""
    return ("sh", "-c", 'exec "$@" 2>"$0"', str(pipe.path))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_service_answers_and_ends_while_its_log_is_not_read(
    world: World, pipe: Pipe, workers: str
) -> None:
    asked = {"user_id": 3, "candidates": world.ids[:2].tolist()}
    options = {"QIN_LOG_SAMPLE": "1", "QIN_DEADLINE_MS": "10000", "QIN_WORKERS": workers}
    with serving(world.models, world.store, under=into(pipe), **options) as service:
        with service.client() as client:
            for _ in range(MORE):
                assert client.post("/v1/score", json=asked).status_code == 200
            assert "qin_log_lines_dropped_total 0.0" in client.get("/metrics").text
            assert pipe.read("score", MORE).count("score") == MORE
            for _ in range(MORE):
                assert client.post("/v1/score", json=asked).status_code == 200
        assert service.stop() == 0


def test_lines_before_the_end_are_written(world: World, pipe: Pipe) -> None:
    with serving(world.models, world.store, under=into(pipe)) as service:
        assert service.stop() == 0
        assert {"access", "ready"} < set(pipe.read("stopped"))


@pytest.fixture
def ends() -> Iterator[list[int]]:
    """A pipe's, to read and to write."""
    pair = list(os.pipe())
    yield pair
    for descriptor in pair:
        os.close(descriptor)


def write(writer: LogWriter, *lines: Any) -> None:
    for line in lines:
        writer.handle(logging.makeLogRecord({"msg": line}))


def test_lines_stay_in_order_and_whole(ends: list[int]) -> None:
    os.set_blocking(ends[1], False)  # as another program may leave it
    writer, read = LogWriter(ends[1]), list[bytes]()
    lines = [f"{number} {'x' * number}" for number in range(1500)]
    expected = "".join(f"{line}\n" for line in lines).encode()

    def collect() -> None:
        while sum(map(len, read)) < len(expected):
            read.append(os.read(ends[0], 1000))

    reader = threading.Thread(target=collect)
    reader.start()
    write(writer, *lines)
    reader.join(WITHIN_S)
    writer.close()
    assert b"".join(read) == expected
    assert writer.dropped == 0


def read_all(descriptor: int) -> list[str]:
    """Lines up to the end."""
    text = b""
    while more := os.read(descriptor, PIPE):
        text += more
    return text.decode().splitlines()


def test_lines_beyond_the_bound_are_dropped_counted_and_told_where_they_are_missing(
    ends: list[int],
) -> None:
    writer = LogWriter(ends[1], most=8)
    for number in range(2_000):  # the pipe holds some 600
        write(writer, f"{number} {'x' * 100}")
    dropped = writer.dropped
    assert dropped > 1_000
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read_all, ends[0])
        wait_until(lambda: writer._queue.empty())
        write(writer, "2000 the next")
        logging.Handler.acquire(writer)  # as ``logging.shutdown`` does
        writer.close()
        writer.release()
        os.close(ends[1])
        lines = reading.result(WITHIN_S)
    ends[1] = os.dup(ends[0])  # for the fixture to close
    expected, told = 0, 0
    for line in lines:
        if "dropped" in line:
            missing = int(line.rpartition(" ")[2])
            expected, told = expected + missing, told + missing
        else:
            assert int(line.split()[0]) == expected
            expected += 1
    assert told == writer.dropped == dropped
    assert expected == 2_001


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_line_after_the_end_is_written_and_so_is_one_logged_while_another_is_made(
    ends: list[int],
) -> None:
    writer = LogWriter(ends[1])

    class Logs:
        def __str__(self) -> str:
            write(writer, "inner")
            return "outer"

    write(writer, Logs())
    writer.close()
    write(writer, "late")
    os.close(ends[1])
    assert read_all(ends[0]) == ["inner", "outer", "late"]
    ends[1] = os.dup(ends[0])
    assert writer.dropped == 0


def test_a_reader_that_has_gone_costs_lines_alone(ends: list[int]) -> None:
    writer = LogWriter(ends[1])
    os.close(ends[0])
    write(writer, "one", "two")
    writer.close()
    assert writer.dropped == 2
    ends[0] = os.dup(ends[1])  # for the fixture to close


def test_a_line_that_cannot_be_made_is_reported_and_the_next_is_written(
    ends: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    writer = LogWriter(ends[1])
    writer.handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))
    write(writer, "\ud800")
    writer.close()
    assert os.read(ends[0], PIPE) == b"\\ud800\n"
    assert "Logging error" in capsys.readouterr().err


def test_without_a_stderr_nothing_is_written_to_its_descriptor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = logging.getLogger().handlers[:]
    monkeypatch.setattr("sys.stderr", None)
    log_writer.write_apart()
    assert logging.getLogger().handlers == before


def test_into_a_file_lines_are_written_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = logging.getLogger().handlers[:]
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr("sys.stderr", file)
        log_writer.write_apart()
    assert logging.getLogger().handlers == before
