"""Implements ``self-check``, ``bench`` and ``stub``: diagnostics of the load test itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import orjson
import typer

from loadtest.cli.terminal import AsJson, console, exit_on_error, print_json, say
from loadtest.experiments import self_check as checking
from loadtest.experiments.bench import bench as measure
from loadtest.experiments.stub import Stub, StubSettings
from loadtest.experiments.stub import run as run_stub
from loadtest.experiments.swap import first_token


def self_check(as_json: AsJson = False) -> None:
    """Check the load test against a stub with a known delay distribution."""
    checks = []
    for check in map(checking.run_check, checking.CHECKS):
        checks.append(check)
        mark = "[green]ok[/]    " if check.passed else "[red]FAILED[/]"
        say(f"{mark} {check.name}")
        console.print(
            f"       {orjson.dumps(check.numbers).decode()}", style="dim", highlight=False
        )
    passed = all(check.passed for check in checks)
    if as_json:
        print_json({"passed": passed, "checks": [asdict(check) for check in checks]})
    raise typer.Exit(0 if passed else 1)


def bench(
    rate: Annotated[float, typer.Option(help="Requests per second.")] = 3000.0,
    requests: Annotated[int, typer.Option(min=1000, help="Number of requests.")] = 60_000,
    core: Annotated[int, typer.Option(help="Core of the generator; the stub uses others.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure rate, lag, processor time and memory of one generator on one core."""
    with exit_on_error():
        result = measure(rate, requests, core)
        lag = result["lag_ms"]
        say(
            f"{result['requests']:,} requests at {result['achieved_per_s']:,.0f}/s on one core: "
            f"lag p50 {lag['p50']:.3f}, p99 {lag['p99']:.3f}, worst {lag['max']:.2f} ms; "
            f"{result['cpu_us_per_request']:.0f} µs of processor per request; memory "
            f"{result['memory_kib'][1] / 1024:.1f} MiB after 10%, "
            f"{result['memory_kib'][-1] / 1024:.1f} MiB at the end"
        )
        if as_json:
            print_json(result)


def stub(
    port: Annotated[int, typer.Option(help="0: a free port.")] = 0,
    service: Annotated[str, typer.Option(help="constant:5ms | exponential:5ms")] = "constant:5ms",
    servers: Annotated[int, typer.Option(min=0, help="0: unlimited, no queue.")] = 1,
    queue: Annotated[int, typer.Option(min=0, help="Longest queue; 429 beyond; 0: no limit.")] = 0,
    drop_every: Annotated[int, typer.Option(min=0, help="Drop every n-th request.")] = 0,
    lie_every: Annotated[int, typer.Option(min=0, help="Falsify every n-th answer.")] = 0,
    mix_every: Annotated[int, typer.Option(min=0, help="Mix versions in every n-th answer.")] = 0,
    fail_every: Annotated[int, typer.Option(min=0, help="Answer every n-th request with 500.")] = 0,
    admin_port: Annotated[int | None, typer.Option(help="For `swap`; 0: a free port.")] = None,
    admin_token: Annotated[str, typer.Option(envvar="QIN_ADMIN_TOKEN")] = "",
    activation: Annotated[float, typer.Option(help="Seconds per activation.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the service times.")] = 0,
) -> None:
    """Run a stub service with a known delay distribution; prints its ports, then its counts."""
    with exit_on_error():
        settings = StubSettings(
            port=port,
            service=service,
            servers=servers,
            queue=queue,
            drop_every=drop_every,
            lie_every=lie_every,
            mix_every=mix_every,
            fail_every=fail_every,
            admin_port=admin_port,
            admin_token=first_token(admin_token),
            activation_s=activation,
            seed=seed,
        )
        counts = run_stub(settings, _print_ports)
        print(orjson.dumps(dict(counts)).decode(), flush=True)


def _print_ports(stub: Stub) -> None:
    ports = {"port": stub.port, "admin_port": stub.admin_port}
    print(orjson.dumps(ports).decode(), flush=True)
