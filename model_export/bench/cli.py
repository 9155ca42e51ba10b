"""``python -m model_export bench``, ``bench-top-k`` and ``bench-user``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from feature_store.contract import ItemRows
from feature_store.schema import FeatureSchema
from model_export.bundle import openvino
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.cli import options
from model_export.cli.app import print_json, refusals, trained
from model_export.cli.progress import counted

if TYPE_CHECKING:
    from model_export.bench.run import Subject


def bench(
    candidates: Annotated[str, typer.Option(help="List lengths.")] = "1,8,64,512,2048",
    history: Annotated[
        str, typer.Option(help="History lengths; those after the first at 512 candidates alone.")
    ] = "64,1024",
    threads: Annotated[int, typer.Option(min=1, help="Threads of every variant.")] = 1,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Approximate time per variant and case.")
    ] = 1.0,
    bundle: Annotated[Path | None, typer.Option(help="Measure this bundle's graphs.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(help="Measure this network, folded.")] = None,
    schema: Annotated[
        Path | None, typer.Option(help="Schema of random weights (MicroLens by default).")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write table and plot into this page.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Benchmark published, shared-user and folded networks and their lower bound, interleaved."""
    if sum(given is not None for given in (bundle, checkpoint, schema)) > 1:
        raise typer.BadParameter("give at most one of --bundle, --checkpoint and --schema")
    lists, lengths = _lengths("--candidates", candidates), _lengths("--history", history)
    with refusals():
        from model_export.bench.page import around, write
        from model_export.bench.run import run
        from model_export.bench.table import show
        from model_export.bundle.processor import processor

        if report is not None:
            around(report, processor().kind)  # fail before minutes of measuring
        with counted("bench") as announce:
            announce("the network", 0, 0)
            result = run(
                _subject(bundle, checkpoint, schema),
                candidates=lists,
                history=lengths,
                threads=threads,
                seconds=seconds,
                announce=announce,
            )
        if report is not None:
            write(result, report)
        if as_json:
            print_json(result)
        else:
            show(result, Console())
        if not all(bar["met"] for bar in result["bars"]):
            raise typer.Exit(1)


def bench_top_k(
    k: Annotated[int, typer.Option(min=1, help="Number of results.")] = 20,
    candidates: Annotated[int, typer.Option(min=1, help="Candidates per list.")] = 2000,
    history: Annotated[int, typer.Option(min=1, help="Items per history.")] = 64,
    lists: Annotated[int, typer.Option(min=1, help="Lists for a narrow network.")] = 10_000,
    seconds: Annotated[
        float,
        typer.Option(
            min=0.01, help="Duration at full size; six times that for the narrow network."
        ),
    ] = 20.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of both variants.")] = 1,
    precision: Annotated[
        Literal["int8", "bf16"], typer.Option(help="Of the shortlists; bf16 runs on OpenVINO.")
    ] = "int8",
    bundle: Annotated[
        Path | None, typer.Option(help="Time this bundle, which has that precision.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="With --bundle: data folder to draw items from.")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Benchmark exact top-k: int8 or bf16 with a rescored shortlist against all in float32."""
    if (bundle is None) != (data is None):
        raise typer.BadParameter("give --bundle and --data together")
    with refusals():
        from model_export.bench.table import show_top_k
        from model_export.bench.top_k import ListShape, run

        if precision == "bf16":
            openvino.require_bf16()
        opened, catalogue = _catalogue(bundle, data, precision)
        with counted("bench-top-k") as announce:
            result = run(
                FeatureSchema.microlens() if opened is None else opened.schema,
                ListShape(k, candidates, history),
                bundle=opened,
                catalogue=catalogue,
                low=precision,
                lists=lists,
                seconds=seconds,
                threads=threads,
                announce=announce,
            )
        if as_json:
            print_json(result)
        else:
            show_top_k(result, Console())


def bench_user(
    candidates: Annotated[int, typer.Option(min=1, help="Candidates per request.")] = 512,
    history: Annotated[int, typer.Option(min=1, help="Items per history.")] = 64,
    seconds: Annotated[float, typer.Option(min=0.01, help="Approximate time per variant.")] = 10.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of both variants.")] = 1,
    as_json: options.AsJson = False,
) -> None:
    """Benchmark user and request features against context features of the same widths."""
    with refusals():
        from model_export.bench.table import show_user
        from model_export.bench.user import run

        with counted("bench-user") as announce:
            result = run(candidates, history, seconds, threads, announce=announce)
        if as_json:
            print_json(result)
        else:
            show_user(result, Console())
        if not all(bar["met"] for bar in result["bars"]):
            raise typer.Exit(1)


def _catalogue(
    bundle: Path | None, data: Path | None, low: str
) -> tuple[Bundle | None, ItemRows | None]:
    if bundle is None or data is None:
        return None, None
    from model_export.quality.held_out import read_items

    opened = Bundle.open(bundle)
    if opened.manifest.gate(low) is None:
        raise BundleError(f"{opened.path}: was not judged in {low}; build it with --{low}")
    return opened, read_items(data, opened.schema).rows[1:]


def _subject(bundle: Path | None, checkpoint: Path | None, schema: Path | None) -> Subject:
    from model_export.bench import subjects

    if bundle is not None:
        return subjects.published(Bundle.open(bundle))
    if checkpoint is not None:
        network, training = trained(checkpoint)
        return subjects.trained(network, f"checkpoint {training.checkpoint}")
    chosen = FeatureSchema.microlens() if schema is None else FeatureSchema.read(schema)
    return subjects.random_weights(chosen)


def _lengths(option: str, text: str) -> list[int]:
    try:
        lengths = [int(part) for part in text.split(",")]
    except ValueError:
        lengths = []
    if not lengths or min(lengths) < 1 or len(set(lengths)) < len(lengths):
        raise typer.BadParameter(f"{option} {text}: positive numbers, separated by commas")
    return lengths
