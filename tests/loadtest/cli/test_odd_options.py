"""Options out of bounds, and combinations that mean nothing: one line, exit code 2, no load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from loadtest.experiments.stub_process import StubProcess
from tests.loadtest.cli.test_cli import QUICK, loadtest
from tests.loadtest.generator.test_generator import raw_server, silent

SHORT = (*QUICK, "--rate", "20", "--duration", "200ms")


def refused(*arguments: str) -> str:
    done = loadtest(*arguments)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("replay=/nowhere", "replay: /nowhere: No such file"),
        ("stages=maybe", "stages: 'maybe' is none of true, yes, 1, false, no, 0"),
        ("top_k=few", "top_k: 'few' is not an integer"),
        ("top_k=0", "top_k: must be 1 or more, got 0"),
        ("rate=fast", "rate: 'fast' is not a number"),
        ("rate=0", "rate: 0 is not positive"),
        ("user_zipf=nan", "user_zipf: must be within 0 … 4, got nan"),
        ("events=5", "events: must be within 0 … 1, got 5"),
        ("connections=99999", "connections: must be within 1 … 15000, got 99999"),
        ("inline-history=-1", "inline_history: must be 0 or more, got -1"),
    ],
)
def test_a_change_has_the_bounds_of_the_option(
    quick_stub: StubProcess, change: str, said: str
) -> None:
    assert said in refused("compare", quick_stub.url, *SHORT, "--rounds", "3", "--change", change)


def test_a_comparison_with_a_service_that_answers_nothing_rightly_says_so(
    quick_stub: StubProcess,
) -> None:
    with StubProcess(service="constant:1ms", servers=0, fail_every=1) as failing:
        said = refused("compare", quick_stub.url, *SHORT, "--against", failing.url)
    assert "error: B, round 1: no request was answered rightly: status " in said


def test_a_search_ends_at_a_service_that_refuses_every_request() -> None:
    with StubProcess(service="constant:1ms", servers=0, fail_every=1) as failing:
        said = refused("search", failing.url, *QUICK, "--rate", "100", "--slo", "p50=9s")
    assert "error: at 100.0/s no request was answered rightly: status " in said
    assert "HTTP 500" in said


@pytest.mark.parametrize(
    "arguments",
    [("search", "--rate", "0"), ("search", "--rate", "nan"), ("run", "--rate", "-1")],
)
def test_a_rate_that_is_none_is_refused(
    quick_stub: StubProcess, arguments: tuple[str, ...]
) -> None:
    command, *rest = arguments
    assert "error: rate: " in refused(command, quick_stub.url, *SHORT, *rest)


@pytest.mark.parametrize("rate", ["0", "-5", "nan", "inf"])
def test_bench_refuses_a_rate_that_is_none(rate: str) -> None:
    assert f"rate: {rate} is not a positive number" in refused("bench", "--rate", rate)


@pytest.mark.parametrize("core", ["-1", "9999", "99999999999999999999"])
def test_a_core_that_there_is_not_is_named(quick_stub: StubProcess, core: str) -> None:
    for command in (
        ("run", quick_stub.url, *SHORT, "--generator-cores", core),
        ("bench", "--requests", "1000", "--core", core),
    ):
        assert f"error: generator: core {core}: not one that this process" in refused(*command)


def test_search_refuses_a_log_whose_rates_are_fixed(
    quick_stub: StubProcess, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_text('{"at": 0, "user_id": 1, "candidates": [1]}\n' * 9)
    said = refused("search", quick_stub.url, *SHORT, "--replay", str(log), "--slo", "p50=9s")
    assert "error: replay: a log has rates of its own" in said


@pytest.mark.parametrize("speed", ["2", "nan"])
def test_a_speed_without_a_log_is_refused(quick_stub: StubProcess, speed: str) -> None:
    assert "error: speed: of a replay" in refused("run", quick_stub.url, *SHORT, "--speed", speed)


@pytest.mark.parametrize("option", [("--growth", "nan"), ("--growth", "-1")])
def test_soak_judges_by_a_growth_that_can_be_exceeded(
    quick_stub: StubProcess, option: tuple[str, str]
) -> None:
    refused("soak", quick_stub.url, "--pid", str(os.getpid()), *SHORT, *option)


@pytest.mark.parametrize("command", ["run", "search", "compare", "swap", "soak"])
def test_a_folder_that_cannot_be_made_is_an_error_before_the_load(
    tmp_path: Path, command: str
) -> None:
    (tmp_path / "file").touch()
    own = {"soak": ["--pid", str(os.getpid())]}.get(command, [])
    with StubProcess(service="constant:1ms", servers=0) as stub:
        said = refused(command, stub.url, *SHORT, *own, "--out", str(tmp_path / "file" / "results"))
    assert f"error: {tmp_path}/file/results: Not a directory" in said
    assert not stub.counts.get("requests")


@pytest.mark.parametrize("stopped", [False, True])
def test_few_open_files_lower_the_connections(quick_stub: StubProcess, stopped: bool) -> None:
    command = (sys.executable, "-m", "loadtest", "run", quick_stub.url, *SHORT, "--json")
    limited = ("bash", "-c", f'ulimit -n {60 if stopped else 200} && exec "$@"', "bash", *command)
    done = subprocess.run(limited, capture_output=True, text=True, check=False)
    if stopped:
        assert done.returncode == 2
        assert "error: ulimit -Hn 60: too few open files for connections" in done.stderr
    else:
        assert "warning: ulimit -Hn 200: at most 136 connections instead of 1,024" in done.stderr
        result = orjson.loads(done.stdout)
        assert result["settings"]["connections"] == 136
        assert result["buckets"]["failed"] == result["buckets"]["unsent"] == 0


def test_a_soft_limit_of_open_files_is_raised() -> None:
    with raw_server(silent) as url:
        command = (sys.executable, "-m", "loadtest", "run", url, *QUICK, "--timeout", "2s")
        load = ("--rate", "100", "--duration", "1s", "--json")
        limited = ("bash", "-c", 'ulimit -Sn 40 && exec "$@"', "bash", *command, *load)
        done = subprocess.run(limited, capture_output=True, text=True, check=False)
    buckets = orjson.loads(done.stdout)["buckets"]
    assert buckets["timed_out"] == sum(buckets.values()) > 40
