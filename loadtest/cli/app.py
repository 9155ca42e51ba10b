"""The program: its commands, in the order a person meets them."""

from __future__ import annotations

import typer

from loadtest.cli import commands, proofs, studies

app = typer.Typer(
    help="Asks a scoring service, open loop, and gives a verdict. "
    "Exit codes: 0 target met, 1 missed or not shown, 2 run invalid or refused.",
    no_args_is_help=True,
    add_completion=False,
)
app.command()(commands.run)
app.command()(commands.plan)
app.command()(studies.search)
app.command()(studies.compare)
app.command()(studies.swap)
app.command()(studies.soak)
app.command("self-check")(proofs.self_check)
app.command()(proofs.bench)
app.command()(proofs.stub)
