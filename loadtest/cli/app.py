"""Assembles the command line of ``python -m loadtest``."""

from __future__ import annotations

import typer

from loadtest.cli import commands, diagnostics, experiments

app = typer.Typer(
    help="Load-test a scoring service with an open loop and judge latency and scores. "
    "Exit codes: 0 target met, 1 missed or undecided, 2 run invalid or error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command()(commands.run)
app.command()(commands.plan)
app.command()(experiments.search)
app.command()(experiments.compare)
app.command()(experiments.swap)
app.command()(experiments.soak)
app.command("self-check")(diagnostics.self_check)
app.command()(diagnostics.bench)
app.command()(diagnostics.stub)
