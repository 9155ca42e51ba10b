"""``python -m model_export build``: export a checkpoint to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model_export.bundle.bundle import Bundle
from model_export.bundle.manifest import Training
from model_export.cli import options
from model_export.cli.app import held_out, print_json, refusals, trained, untrained
from model_export.cli.progress import steps
from model_export.cli.report import calibration_in_words, gate_in_words


def build(
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="[CHECKPOINT]", help="A checkpoint's folder.")
    ] = None,
    out: options.Models = Path("var/models"),
    version: options.VersionName = None,
    int8: options.WantsInt8 = False,
    bf16: options.WantsBf16 = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="With --int8 or --bf16: folder of held-out rows (valid.parquet) and items."
        ),
    ] = None,
    cache: options.Cache = None,
    users: options.Users = None,
    force: options.Force = False,
    accept_rounding: options.AcceptRounding = False,
    content: options.Content = None,
    given_content: options.GivenContent = False,
    random: Annotated[
        bool, typer.Option("--random", help="Random weights instead of a checkpoint.")
    ] = False,
    schema: Annotated[
        Path | None, typer.Option(help="With --random: schema file (MicroLens by default).")
    ] = None,
    seed: Annotated[int, typer.Option(help="With --random.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Fold CHECKPOINT and publish it; fails if an answer is off by more than float32 rounding."""
    if (checkpoint is None) != random:
        raise typer.BadParameter("give either a CHECKPOINT or --random")
    gated = int8 or bf16
    if gated and (data is None) != random:
        raise typer.BadParameter(
            f"--{'int8' if int8 else 'bf16'} requires --data, held-out rows for its gate "
            "(random rows with --random)"
        )
    if not gated and (force or data):
        raise typer.BadParameter("--data and --force require --int8 or --bf16")
    for option, given in (("--cache", cache), ("--users", users)):
        if given is not None and data is None:
            raise typer.BadParameter(f"{option} requires --data")
    origin = options.content_origin(content, given_content)
    with refusals():
        from model_export.build import STEPS, Bf16, Int8
        from model_export.build import build as build_bundle

        load = "load network and data" if gated else "load the network"
        with steps((load, *STEPS)) as announce:
            announce(load)
            if checkpoint is None:
                network, training = untrained(schema, seed), Training()
            else:
                network, training = trained(checkpoint)
            rows = held_out(network, data, checkpoint, cache, users) if gated else None
            bundle = build_bundle(
                network,
                out,
                version=version,
                training=training,
                int8=Int8(rows, force) if rows and int8 else None,
                bf16=Bf16(rows, force) if rows and bf16 else None,
                accept_rounding=accept_rounding,
                content=origin,
                announce=announce,
            )
        tell_published(bundle, as_json)


def tell_published(bundle: Bundle, as_json: bool) -> None:
    """Print a published bundle's figures."""
    parity, gate, bf16 = bundle.manifest.parity, bundle.manifest.quantisation, bundle.manifest.bf16
    calibration = bundle.manifest.calibration
    if as_json:
        summary = {"version": bundle.version, "path": str(bundle.path), **parity.model_dump()}
        if calibration is not None:
            summary["calibration"] = calibration.model_dump()
        if gate is not None:
            summary["quantisation"] = gate.model_dump()
        if bf16 is not None:
            summary["bf16"] = bf16.model_dump()
        print_json(summary)
        return
    typer.echo(
        f"published {bundle.path}: worst |Δp| {parity.max_abs_error:.2g} over {parity.cases} "
        f"golden answers ({parity.worst_case})"
        + (": ROUNDING ACCEPTED beyond its bounds" if parity.rounding_accepted else "")
    )
    if calibration is not None:
        typer.echo(f"calibration: {calibration_in_words(calibration)}")
    if gate is not None:
        typer.echo(f"int8: {gate_in_words(gate)}")
    if bf16 is not None:
        typer.echo(f"bf16: {gate_in_words(bf16)}")
