"""``self-check``, ``bench`` and ``stub``: the load test about itself."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer

from loadtest.cli.terminal import AsJson, console, print_json, refusals, say
from loadtest.experiments import self_check as checking
from loadtest.experiments.bench import bench as measure
from loadtest.experiments.stub import Stub, StubSettings
from loadtest.experiments.stub import run as run_stub
from loadtest.experiments.swap import first_token


def self_check(as_json: AsJson = False) -> None:
    """Prove the load test against a stub with a known delay distribution."""
    checks = []
    for check in checking.self_check():
        checks.append(check)
        mark = "[green]ok[/]    " if check.passed else "[red]FAILED[/]"
        say(f"{mark} {check.name}")
        console.print(
            f"       {orjson.dumps(check.numbers).decode()}", style="dim", highlight=False
        )
    if as_json:
        print_json(checking.as_json(checks))
    raise typer.Exit(0 if all(check.passed for check in checks) else 1)


def bench(
    rate: Annotated[float, typer.Option(help="Requests a second.")] = 3000.0,
    requests: Annotated[int, typer.Option(min=1000, help="How many.")] = 60_000,
    core: Annotated[int, typer.Option(help="The generator's core; the stub takes others.")] = 0,
    as_json: AsJson = False,
) -> None:
    """How fast and how punctual one generator on one core is, and whether its memory is flat."""
    with refusals():
        result = measure(rate, requests, core)
        lag = result["lag_ms"]
        say(
            f"{result['requests']:,} requests at {result['achieved_per_s']:,.0f}/s on one core: "
            f"lag p50 {lag['p50']:.3f}, p99 {lag['p99']:.3f}, worst {lag['max']:.2f} ms; "
            f"{result['cpu_us_per_request']:.0f} µs of processor a request; memory "
            f"{result['memory_kib'][1] / 1024:.1f} MiB after a tenth, "
            f"{result['memory_kib'][-1] / 1024:.1f} MiB at the end"
        )
        if as_json:
            print_json(result)


def stub(
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 0,
    service: Annotated[str, typer.Option(help="constant:5ms | exponential:5ms")] = "constant:5ms",
    servers: Annotated[int, typer.Option(min=0, help="0: nobody waits.")] = 1,
    queue: Annotated[int, typer.Option(min=0, help="Beyond it 429; 0: no limit.")] = 0,
    drop_every: Annotated[int, typer.Option(min=0, help="Drop every n-th request.")] = 0,
    lie_every: Annotated[int, typer.Option(min=0, help="Falsify every n-th answer.")] = 0,
    mix_every: Annotated[int, typer.Option(min=0, help="Mix versions in it.")] = 0,
    fail_every: Annotated[int, typer.Option(min=0, help="Answer it with a 500.")] = 0,
    admin_port: Annotated[int | None, typer.Option(help="For `swap`; 0 takes a free one.")] = None,
    admin_token: Annotated[str, typer.Option(envvar="QIN_ADMIN_TOKEN")] = "",
    activation: Annotated[float, typer.Option(help="Seconds that one takes.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of the service times.")] = 0,
) -> None:
    """A stand-in for the service with a known delay distribution; prints its ports, then counts."""
    with refusals():
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
        counts = run_stub(settings, _announce)
        print(orjson.dumps(dict(counts)).decode(), flush=True)


def _announce(stub: Stub) -> None:
    ports = {"port": stub.port, "admin_port": stub.admin_port}
    print(orjson.dumps(ports).decode(), flush=True)
