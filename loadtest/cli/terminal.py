"""What commands share: the console, refusals, and what a finished run leaves behind."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from loadtest.analysis.slo import Slo
from loadtest.generator.runner import Run, RunError
from loadtest.oracle.bundle import BundleOracle
from loadtest.oracle.oracle import Oracle, StubOracle
from loadtest.report import report
from loadtest.report.records import write_columns, write_hdr_log

console = Console(stderr=True)

Slos = Annotated[list[str], typer.Option("--slo", help="A target, e.g. p99=25ms; repeat.")]
OneSlo = Annotated[str, typer.Option("--slo", help="The target, e.g. p99=25ms.")]
AsJson = Annotated[bool, typer.Option("--json", help="Every number, on standard output.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the report and the raw numbers.")]
OraclePath = Annotated[
    str | None,
    typer.Option("--oracle", help="Bundle, or folder of them, to check every score against."),
]
Store = Annotated[str | None, typer.Option(help="The service's feature store, for --oracle.")]
Pid = Annotated[int | None, typer.Option(help="The service's process: its memory is watched.")]


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """What cannot be run says why, in one line, with exit code 2."""
    try:
        yield
    except (ValueError, LookupError, RunError, OSError) as error:
        console.print(f"[bold red]refused:[/] {error}", highlight=False)
        raise typer.Exit(2) from None


def say(line: str) -> None:
    console.print(line, highlight=False)


def print_json(content: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def slos_of(texts: Sequence[str]) -> list[Slo]:
    return [Slo.parse(text) for text in texts]


def oracle_of(path: str | None, store: str | None) -> Oracle | None:
    """``stub`` names the stub's own truth; anything else is a bundle or a folder of bundles."""
    if path is None:
        return None
    if path == "stub":
        return StubOracle()
    if store is None:
        raise ValueError("oracle: needs --store, where the service reads histories and items")
    oracle = BundleOracle(Path(path), store)
    for reason in oracle.passed_over:
        say(f"oracle: passed over: {reason}")
    return oracle


def keep(
    out: Path | None, run: Run, result: dict[str, Any], extra: Sequence[report.Section] = ()
) -> None:
    """report.html, result.json, response.hlog, service.hlog and columns.parquet in ``out``."""
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    report.write_run(out / "report.html", run, result, extra)
    keep_json(out, result)
    write_hdr_log(run, run.response(), out / "response.hlog")
    write_hdr_log(run, run.service(), out / "service.hlog")
    write_columns(run, out / "columns.parquet")
    say(f"{out}/report.html, result.json, response.hlog, service.hlog, columns.parquet")


def keep_json(out: Path, result: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "result.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
