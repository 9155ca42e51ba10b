"""``python -m training bench`` and ``bench-users``: the time of training steps."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from training.cli.console import AsJson, exit_on_error, progress, screen
from training.cli.recipe import Preset, Settings
from training.recipe_files import resolve


def bench(
    batch: Annotated[int, typer.Option(min=2, help="Rows.")] = 256,
    history: Annotated[int | None, typer.Option(min=1, help="History length L.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved repeats.")] = 11,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time forward + backward at the paper's sizes, against the published formulation."""
    from training.bench.steps import run

    with progress() as on_progress:
        figures = run(
            batch=batch, history=history, repeats=repeats, threads=threads, on_progress=on_progress
        )
    if as_json:
        print(json.dumps(figures))
    else:
        table = Table("figure", "value")
        for name, value in figures.items():
            table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
        screen.print(table)


def bench_users(
    users: Annotated[list[int] | None, typer.Option(min=1, help="May be repeated.")] = None,
    preset: Preset = "demo",
    settings: Settings = None,
    batch: Annotated[int, typer.Option(min=2, help="Rows.")] = 2048,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved repeats.")] = 21,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="CPU threads.")] = None,
    as_json: AsJson = False,
) -> None:
    """Time a training step with few and with many users, 1,000 and 1,000,000 by default."""
    with exit_on_error():
        recipe = resolve(preset, None, settings or (), {})

    from training.bench.users import run

    with progress() as on_progress:
        figures = run(
            users or [1000, 1_000_000],
            recipe,
            batch=batch,
            repeats=repeats,
            threads=threads,
            published=preset == "published",
            on_progress=on_progress,
        )
    if as_json:
        print(json.dumps(figures))
    else:
        for count, value in figures["step_ms"].items():
            screen.print(f"{int(count):,} users: {value:.1f} ms a step")
        screen.print(f"ratio: {figures['ratio']:.3f}")
