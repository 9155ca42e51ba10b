"""Benchmarks one generator against a stub on another core: rate, lag, processor time, memory."""

from __future__ import annotations

import os
from typing import Any

from loadtest.analysis.results import summarise
from loadtest.experiments.stub_process import StubProcess
from loadtest.generator.runner import Load, execute
from loadtest.generator.workload import Workload


def bench(rate: float, requests: int, core: int) -> dict[str, Any]:
    """Send ``requests`` small bodies at ``rate`` from a generator on ``core``."""
    if not 0 < rate < float("inf"):
        raise ValueError(f"rate: {rate:g} is not a positive number")
    others = os.sched_getaffinity(0) - {core}
    with StubProcess(service="constant:0ms", servers=0) as stub:
        os.sched_setaffinity(stub.pid, others or {core})
        load = Load(
            stub.url,
            rate=rate,
            seconds=requests / rate,
            warmup=1.0,
            workload=Workload(candidates="4"),
            generator_cores=(core,),
        )
        with execute(load) as run:
            result = summarise(run)
    generator = result["generators"][0]
    memory = generator["memory_kib"]
    return {
        "requests": result["requests"],
        "rate_per_s": result["rate"]["scheduled_per_s"],
        "achieved_per_s": result["rate"]["achieved_per_s"],
        "lag_ms": result["clocks_ms"]["lag"],
        "response_ms": result["latency_ms"]["corrected"],
        "cpu_us_per_request": 1e6 * generator["cpu_s"] / (result["requests"]),
        "memory_kib": memory,
        "memory_growth_kib": memory[-1] - memory[1],
        "buckets": result["buckets"],
        "verdict": result["verdict"],
    }
