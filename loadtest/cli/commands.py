"""Implements ``run`` and ``plan``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from loadtest.analysis.results import summarise
from loadtest.analysis.slo import Slo
from loadtest.cli.options import LoadOptions, with_load
from loadtest.cli.progress import live
from loadtest.cli.terminal import (
    AsJson,
    OraclePath,
    Out,
    Slos,
    Store,
    console,
    exit_on_error,
    make_folder,
    oracle_of,
    print_json,
    say,
    write_results,
)
from loadtest.generator.replay import write_log
from loadtest.generator.runner import execute
from loadtest.oracle.comparison import check_run
from loadtest.report.summary import EXIT_CODES, show


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
    """Load the service at a rate, open loop, and compare its latency with targets."""
    with exit_on_error(), oracle_of(oracle, store) as judge:
        slos = [Slo.parse(text) for text in slo]
        make_folder(out)
        load = replace(options.for_service(), keep_answers=judge is not None)
        with live(console, "run") as watch, execute(load, watch=watch) as finished:
            checked = None if judge is None else check_run(finished, judge)
            result = summarise(finished, slos, checked)
            show(console, result)
            write_results(out, finished, result)
        if as_json:
            print_json(result)
        raise typer.Exit(EXIT_CODES[result["verdict"]])


@with_load
def plan(
    options: LoadOptions,
    *,
    out: Annotated[Path, typer.Option(help="File to write, a JSON document per line.")],
) -> None:
    """Write the schedule and its requests as a log, for --replay or another tool."""
    with exit_on_error():
        times, documents = options.load().schedule()
        write_log(out, times, documents)
        say(f"{times.size:,} requests over {times[-1]:.1f} s in {escape(str(out))}")
