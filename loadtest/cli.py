"""Commands. Exit codes: 0 target met, 1 target missed or not shown, 2 run invalid or refused."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from loadtest.bench import bench
from loadtest.bundle_oracle import BundleOracle
from loadtest.options import LoadOptions, with_load
from loadtest.oracle import Oracle, StubOracle, check_run
from loadtest.progress import live
from loadtest.replay import write_log
from loadtest.results import summarise
from loadtest.runner import Run, RunError, execute
from loadtest.self_check import as_json as self_check_json
from loadtest.self_check import self_check
from loadtest.slo import Slo
from loadtest.stub import Stub, StubSettings
from loadtest.stub import run as run_stub
from loadtest.summary import EXIT_CODES, show

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
console = Console(stderr=True)

Slos = Annotated[list[str], typer.Option("--slo", help="A target, e.g. p99=25ms; repeat.")]
AsJson = Annotated[bool, typer.Option("--json", help="Every number, on standard output.")]
Out = Annotated[Path | None, typer.Option(help="Folder for report.html, HDR logs, raw columns.")]
OraclePath = Annotated[
    str | None,
    typer.Option("--oracle", help="Bundle, or folder of them, to check every score against."),
]
Store = Annotated[str | None, typer.Option(help="The service's feature store, for --oracle.")]


@app.command()
@with_load
def run(
    options: LoadOptions,
    *,
    slo: Slos = [],  # noqa: B006 - typer copies it
    oracle: OraclePath = None,
    store: Store = None,
    out: Out = None,
    as_json: AsJson = False,
) -> None:
    """Drive the service at a rate, open loop, and hold its latency against a target."""
    with refusals():
        slos = [Slo.parse(text) for text in slo]
        judge = oracle_of(oracle, store)
        load = replace(options.load(), keep_answers=judge is not None)
        with live(console, "run") as watch, execute(load, watch=watch) as finished:
            report = None if judge is None else check_run(finished, judge)
            result = summarise(finished, slos, report)
            finish(result, finished, out=out, as_json=as_json)


@app.command()
@with_load
def plan(
    options: LoadOptions,
    *,
    out: Annotated[Path, typer.Option(help="Where to write it, a JSON document a line.")],
) -> None:
    """Write the schedule and its requests as a log, for --replay or for another tool."""
    with refusals():
        times, documents = options.load().schedule()
        write_log(out, times, documents)
        console.print(f"{times.size:,} requests over {times[-1]:.1f} s in {out}")


@app.command()
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
            admin_token=admin_token,
            activation_s=activation,
            seed=seed,
        )
        counts = run_stub(settings, _announce)
        print(orjson.dumps(dict(counts)).decode(), flush=True)


@app.command("self-check")
def self_check_command(as_json: AsJson = False) -> None:
    """Prove the load test against a stub with a known delay distribution."""
    checks = []
    for check in self_check():
        checks.append(check)
        mark = "[green]ok[/]" if check.passed else "[red]FAILED[/]"
        console.print(f"{mark}  {check.name}", highlight=False)
        console.print(f"    {orjson.dumps(check.numbers).decode()}", style="dim", highlight=False)
    if as_json:
        print_json(self_check_json(checks))
    raise typer.Exit(0 if all(check.passed for check in checks) else 1)


@app.command("bench")
def bench_command(
    rate: Annotated[float, typer.Option(help="Requests a second.")] = 3000.0,
    requests: Annotated[int, typer.Option(min=1000, help="How many.")] = 60_000,
    core: Annotated[int, typer.Option(help="The generator's core; the stub takes others.")] = 0,
    as_json: AsJson = False,
) -> None:
    """How fast and how punctual one generator on one core is, and whether its memory is flat."""
    with refusals():
        result = bench(rate, requests, core)
        console.print_json(orjson.dumps(result).decode())
        if as_json:
            print_json(result)


def _announce(stub: Stub) -> None:
    ports = {"port": stub.port, "admin_port": stub.admin_port}
    print(orjson.dumps(ports).decode(), flush=True)


def finish(result: dict[str, Any], finished: Run, *, out: Path | None, as_json: bool) -> None:
    """Show it, keep it, and leave with the exit code that says it."""
    show(console, result)
    if as_json:
        print_json(result)
    raise typer.Exit(EXIT_CODES[result["verdict"]])


def print_json(content: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """What cannot be run says why, in one line, with exit code 2."""
    try:
        yield
    except (ValueError, RunError, OSError) as error:
        console.print(f"[bold red]refused:[/] {error}", highlight=False)
        raise typer.Exit(2) from None


def oracle_of(path: str | None, store: str | None) -> Oracle | None:
    if path is None:
        return None
    if path == "stub":
        return StubOracle()
    if store is None:
        raise ValueError("oracle: needs --store, where the service reads histories and items")
    return BundleOracle(Path(path), store)
