"""The same load through tools that others trust: autocannon ``-R`` and MLPerf LoadGen."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import orjson

BODY = '{"user_id": 1, "candidates": [1, 2, 3, 4, 5, 6, 7, 8]}'
CONNECTIONS = 128


@dataclass(frozen=True)
class Outcome:
    p99_ms: float
    met: bool


def missing_autocannon() -> str | None:
    found = shutil.which("autocannon")
    return None if found else "autocannon is not installed (npm install --global autocannon)"


def missing_loadgen() -> str | None:
    found = find_spec("mlperf_loadgen")
    return None if found else "MLPerf LoadGen is not installed (pip install mlcommons-loadgen)"


def autocannon(url: str, rate: float, seconds: float, target_ms: float) -> Outcome:
    """Its rate mode corrects for coordinated omission. It gives no verdict: p99 is compared."""
    program = shutil.which("autocannon")
    assert program is not None
    command = [
        *(program, "--json", "--overallRate", f"{rate:g}", "--connections", str(CONNECTIONS)),
        *("--duration", f"{seconds:g}", "--method", "POST", "--body", BODY),
        *("--headers", "content-type=application/json", f"{url}/v1/score"),
    ]
    done = subprocess.run(command, capture_output=True, check=True, timeout=seconds + 60)
    p99 = float(orjson.loads(done.stdout)["latency"]["p99"])
    return Outcome(p99, p99 <= target_ms)


def loadgen(url: str, rate: float, seconds: float, target_ms: float, folder: Path) -> Outcome:
    """Server scenario: Poisson arrivals, latency from the schedule, its own verdict."""
    program = Path(__file__).with_name("loadgen_client.py")
    numbers = [f"{value:g}" for value in (rate, seconds, target_ms)]
    command = [sys.executable, str(program), f"{url}/v1/score", BODY, *numbers, str(folder)]
    subprocess.run(command, check=True, timeout=seconds + 120)
    summary = (folder / "mlperf_log_summary.txt").read_text()
    p99 = re.search(r"99.00 percentile latency \(ns\)\s*:\s*(\d+)", summary)
    verdict = re.search(r"Performance constraints satisfied : (\w+)", summary)
    assert p99 is not None, summary
    assert verdict is not None, summary
    return Outcome(int(p99[1]) / 1e6, verdict[1] == "Yes")
