"""The program as it is used: exit codes, JSON, files, Ctrl-C, refusals."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console
from typer.testing import CliRunner

from loadtest.cli import terminal
from loadtest.cli.app import app
from loadtest.experiments.stub_process import StubProcess
from tests.loadtest.canned import answering, canned
from tests.ports import free_port
from tests.service import forked

QUICK = ("--candidates", "4", "--warmup", "0", "--distinct", "200")


def loadtest(*arguments: str) -> subprocess.CompletedProcess[str]:
    return forked.run("loadtest", *arguments)


def run(url: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = loadtest("run", url, *QUICK, "--json", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, orjson.loads(done.stdout)


def test_a_met_target_leaves_with_0_and_every_file(quick_stub: StubProcess, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, result = run(
        quick_stub.url, "--rate", "300", "--duration", "2s", "--slo", "p99=80ms",
        "--oracle", "stub", "--out", str(out),
    )  # fmt: skip
    assert (code, result["verdict"]) == (0, "pass")
    assert result["oracle"]["checked"] == result["requests"]
    assert "--slo p99=80ms" in result["command"]
    assert {path.name for path in out.iterdir()} == {
        "report.html", "result.json", "response.hlog", "service.hlog", "columns.parquet",
    }  # fmt: skip


def test_a_row_of_the_table_is_one_line_where_output_is_no_terminal(
    quick_stub: StubProcess,
) -> None:
    done = loadtest("run", quick_stub.url, *QUICK, "--rate", "100", "--duration", "1s")
    lines = done.stderr.splitlines()
    assert any(line.split()[0] == "ms" and line.split()[-1] == "max" for line in lines), lines
    row = next(line for line in lines if line.startswith("response, from the schedule"))
    assert len(row.split()) == 4 + 7, lines


def test_no_secret_of_the_command_line_is_written_down(
    quick_stub: StubProcess, tmp_path: Path
) -> None:
    _, result = run(
        quick_stub.url, "--rate", "100", "--duration", "1s", "--out", str(tmp_path / "out"),
        "--api-key", "first-secret", "--events-key=second-secret", "--header", "X: third-secret",
    )  # fmt: skip
    assert "--api-key … --events-key=… --header …" in result["command"].replace("'", "")
    written = [p.read_bytes() for p in (tmp_path / "out").iterdir()]
    assert not any(b"-secret" in content for content in written)


def test_a_missed_target_leaves_with_1(quick_stub: StubProcess) -> None:
    code, result = run(
        quick_stub.url, "--rate", "100", "--duration", "1s", "--slo", "p99=4ms", "--slo", "p50=1s"
    )
    assert (code, result["verdict"]) in [(1, "fail"), (2, "invalid")]  # 0.4 ms of lag is allowed
    assert result["verdicts"][0]["outcome"] == "fail"
    assert result["verdicts"][0]["over"] == result["requests"]


def test_too_few_requests_leave_with_1(quick_stub: StubProcess) -> None:
    code, result = run(quick_stub.url, "--rate", "50", "--duration", "1s", "--slo", "p99.9=1s")
    assert (code, result["verdict"]) == (1, "undecided")
    assert result["verdicts"][0]["measured_ms"] is None


def test_wrong_answers_leave_with_1_whatever_the_target() -> None:
    with StubProcess(service="constant:1ms", servers=0, lie_every=30) as stub:
        met = ("--slo", "p50=1s")  # and no send is late by its tenth, on a busy machine either
        code, result = run(stub.url, "--rate", "100", "--duration", "1s", "--oracle", "stub", *met)
    assert (code, result["verdict"]) == (1, "fail")
    assert [verdict["outcome"] for verdict in result["verdicts"]] == ["pass"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["http://192.0.2.1:80"], "--allow-remote"),
        (["http://127.0.0.1:1", "--slo", "p99"], "slo"),
        (["http://127.0.0.1:1", "--arrivals", "sine"], "arrivals"),
        (["http://127.0.0.1:1", "--rate", "0"], "rate"),
        (["http://127.0.0.1:1", "--duration", "90"], "time"),
        (["http://127.0.0.1:1", "--duration", "100h"], "duration"),
        (["http://127.0.0.1:1", "--candidates", "x"], "candidates"),
        (["http://127.0.0.1:1", "--users", "none.parquet"], "users"),
        (["http://127.0.0.1:1", "--users", "a[/b].parquet"], "users: a[/b].parquet"),
        (["http://127.0.0.1:1", "--users", "a[b].parquet"], "users: a[b].parquet"),
        (["http://127.0.0.1:1", "--header", "x"], "header"),
        (["http://127.0.0.1:1", "--oracle", "somewhere"], "--store"),
        (["http://127.0.0.1:1", "--generator-cores", "a"], "generator-cores"),
        (["http://127.0.0.1:1", "--replay", "none.jsonl"], "replay"),
        (["http://127.0.0.1:1", "--items", "lmdb:///no/store"], "items: /no/store: there is no"),
        (["http://127.0.0.1:1", "--users", "redis://127.0.0.1:1"], "users: redis 127.0.0.1:1: "),
    ],
)
def test_what_cannot_be_run_is_refused_with_2_and_the_option(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=told, width=1000))
    with canned({}) as url:  # of a service: without one that is what is said
        answering = [url if each == "http://127.0.0.1:1" else each for each in arguments]
        done = CliRunner().invoke(app, ["run", *answering])
    assert done.exit_code == 2
    assert named in told.getvalue()


@pytest.mark.parametrize("command", ["run", "search", "compare", "swap", "soak"])
def test_a_service_that_refuses_connections_is_told_before_the_load(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=told, width=1000))
    versions = ["--version", "a", "--version", "b"]
    pid, change = ["--pid", str(os.getpid())], ["--change", "top_k=2"]
    own = {"soak": pid, "swap": versions, "compare": change}.get(command, [])
    url = f"http://127.0.0.1:{free_port()}"
    done = CliRunner().invoke(app, [command, url, *QUICK, "--duration", "2s", *own])
    assert done.exit_code == 2, done.output
    expected = f"error: {url}: connection refused; is the service running?"
    assert told.getvalue().strip() == expected


def test_a_service_that_is_not_ready_is_loaded() -> None:
    with answering(lambda *asked: (503, b"{}")) as url:
        code, result = run(url, "--duration", "1s", "--rate", "50", "--slo", "p99=80ms")
    assert (code, result["verdict"]) == (1, "fail")


@pytest.mark.parametrize("command", ["soak", "swap"])
def test_a_malformed_target_is_an_error_before_the_load(command: str) -> None:
    with StubProcess(service="constant:5ms", servers=0, admin_port=0) as stub:
        own = {"soak": ["--pid", str(stub.pid)], "swap": ["--admin", stub.admin_url]}[command]
        arguments = [command, stub.url, "--duration", "1s", "--warmup", "0", "--slo", "p99", *own]
        done = CliRunner().invoke(app, arguments)
    assert (done.exit_code, stub.counts.get("requests", 0)) == (2, 0)


def test_activations_that_fail_are_told_with_the_reason(
    quick_stub: StubProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the admin API is at another port than --admin."""
    told = io.StringIO()
    monkeypatch.setattr(terminal, "console", Console(file=told, width=1000))
    nowhere = f"http://127.0.0.1:{free_port()}"
    own = ["--admin", nowhere, "--version", "a", "--version", "b", "--swaps", "2"]
    arguments = ["swap", quick_stub.url, *QUICK, "--duration", "2s", "--rate", "50", *own]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code in {1, 2}  # 2: the generator itself was late
    assert "0 swaps: errors 2" in told.getvalue()
    assert f"Failed: admin: {nowhere} does not answer" in told.getvalue()


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_it_is_stopped_cleanly_with_a_report_of_what_there_is(
    quick_stub: StubProcess, tmp_path: Path, word: signal.Signals
) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "loadtest", "run", quick_stub.url, *QUICK, "--rate", "100"),
            *("--duration", "60s", "--json", "--out", str(tmp_path)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    children = _begun(process.pid, 2.5)
    process.send_signal(word)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors.decode()
    result = orjson.loads(output)
    assert result["interrupted_after_s"] < 10
    buckets = result["buckets"]
    assert buckets["ok"] > 20
    assert buckets["unsent"] > 4000
    assert sum(buckets.values()) == result["requests"]
    assert "stopped after" in (tmp_path / "report.html").read_text("utf-8")
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_generators_end_with_their_parent(quick_stub: StubProcess) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "loadtest", "run", quick_stub.url, *QUICK, "--duration", "60s"],
        stderr=subprocess.DEVNULL,
    )
    children = _begun(process.pid, 1.0)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "a generator went on alone"
        time.sleep(0.1)


def test_a_plan_can_be_replayed(quick_stub: StubProcess, tmp_path: Path) -> None:
    log = tmp_path / "plan.jsonl"
    done = loadtest(
        "plan", quick_stub.url, *QUICK, "--rate", "100", "--duration", "2s", "--out", str(log)
    )
    assert done.returncode == 0, done.stderr
    lines = log.read_bytes().splitlines()
    code, result = run(quick_stub.url, "--replay", str(log), "--speed", "2")
    assert code == 0
    assert result["requests"] == result["buckets"]["ok"] == len(lines)
    assert result["rate"]["scheduled_per_s"] == pytest.approx(200, rel=0.2)


def test_one_room_knows_the_others_by_http_alone() -> None:
    """Nothing of torch, onnx, pandas or another room is imported before it is asked for."""
    code = (
        "import sys, loadtest.cli.app, loadtest.generator.process; "
        "print([n for n in ('torch', 'onnx', 'onnxruntime', 'pandas', 'matplotlib', 'service', "
        "'training', 'model_export', 'feature_store') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


def _begun(pid: int, for_s: float) -> list[int]:
    """Its generators, when the first has run for so long."""
    deadline = time.monotonic() + 60
    while not _children(pid):
        assert time.monotonic() < deadline, "it has started no generator"
        time.sleep(0.1)
    time.sleep(for_s)
    return _children(pid)


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split() if os.path.exists(f"/proc/{child}")]
