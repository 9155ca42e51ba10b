"""Shared parts of the commands: option types, console output, errors and result files."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape

from loadtest.generator.runner import Run, RunError
from loadtest.oracle.bundle_oracle import BundleOracle, OracleError
from loadtest.oracle.comparison import Oracle
from loadtest.oracle.stub_oracle import StubOracle
from loadtest.report import page
from loadtest.report.exports import write_columns, write_hdr_log

console = Console(stderr=True)
if not console.is_terminal:
    console.width = 200  # rich's 80 columns would wrap what a log or a file holds

Slos = Annotated[list[str], typer.Option("--slo", help="Target, e.g. p99=25ms; repeatable.")]
OneSlo = Annotated[str, typer.Option("--slo", help="Target, e.g. p99=25ms.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print all numbers to standard output.")]
Out = Annotated[Path | None, typer.Option(help="Folder for the report and raw data.")]
OraclePath = Annotated[
    str | None,
    typer.Option("--oracle", help="Bundle, or folder of bundles, to check all scores against."),
]
Store = Annotated[str | None, typer.Option(help="The service's feature store, for --oracle.")]
Pid = Annotated[int | None, typer.Option(help="Process id of the service, to record its memory.")]


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an expected error as one line and exit with code 2."""
    try:
        yield
    except (ValueError, LookupError, RunError, OSError) as error:
        from feature_store.wording import with_file

        console.print(f"[bold red]error:[/] {escape(with_file(error))}", highlight=False)
        raise typer.Exit(2) from None


def say(line: str) -> None:
    """Print a line of rich's markup on stderr."""
    console.print(line, highlight=False)


def print_json(content: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


@contextlib.contextmanager
def oracle_of(path: str | None, store: str | None) -> Iterator[Oracle | None]:
    """Open the oracle for the block: ``stub``, or the path of a bundle or a folder of bundles."""
    if path is None or path == "stub":
        yield StubOracle() if path else None
        return
    if store is None:
        raise ValueError("oracle: --store is required: the feature store of the service")
    from feature_store.errors import StoreError
    from model_export.bundle.errors import BundleError

    try:
        with contextlib.closing(BundleOracle(Path(path), store)) as oracle:
            for skipped in oracle.skipped:
                say(f"oracle: skipped: {escape(str(skipped))}")
            yield oracle
    except (StoreError, BundleError) as error:
        raise OracleError(f"oracle: {error}") from error


def make_folder(out: Path | None) -> None:
    """Make the folder of the results before the load, whose results would be lost without it."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)


def write_results(
    out: Path | None, run: Run, result: dict[str, Any], extra: Sequence[page.Section] = ()
) -> None:
    """Write report.html, result.json, response.hlog, service.hlog and columns.parquet."""
    if out is None:
        return
    page.write_run(out / "report.html", run, result, extra)
    write_json(out, result)
    write_hdr_log(run, run.response(), out / "response.hlog")
    write_hdr_log(run, run.service(), out / "service.hlog")
    write_columns(run, out / "columns.parquet")
    say(
        f"{escape(str(out))}/report.html, result.json, response.hlog, service.hlog, columns.parquet"
    )


def write_json(out: Path, result: dict[str, Any]) -> None:
    (out / "result.json").write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
