"""``python -m model_export calibrate``: export a bundle with calibrated probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model_export.cli import options
from model_export.cli.app import held_out, refusals, trained
from model_export.cli.build import tell_published
from model_export.cli.progress import steps


def calibrate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint's folder.")],
    data: Annotated[Path, typer.Option(help="Folder of held-out rows (valid.parquet) and items.")],
    cache: options.Cache = None,
    users: options.Users = None,
    negative_sampling_rate: Annotated[
        float, typer.Option(min=1e-6, max=1.0, help="Share of the negatives kept in the data.")
    ] = 1.0,
    out: options.Models = Path("var/models"),
    version: options.VersionName = None,
    int8: options.WantsInt8 = False,
    bf16: options.WantsBf16 = False,
    force: options.Force = False,
    accept_rounding: options.AcceptRounding = False,
    content: options.Content = None,
    given_content: options.GivenContent = False,
    as_json: options.AsJson = False,
) -> None:
    """Fit Platt scaling on DATA, fold it into the last layer, and publish the bundle."""
    if force and not (int8 or bf16):
        raise typer.BadParameter("--force requires --int8 or --bf16")
    origin = options.content_origin(content, given_content)
    with refusals():
        from model_export.build import STEPS, Bf16, Int8, build
        from model_export.quality.calibrate import PICTURE
        from model_export.quality.calibrate import calibrate as fit

        load, scale = "load network and data", "fit the calibration"
        with steps((load, scale, *STEPS)) as announce:
            announce(load)
            network, training = trained(checkpoint)
            rows = held_out(network, data, checkpoint, cache, users)
            announce(scale)
            found = fit(network, rows, negative_sampling_rate)
            bundle = build(
                network,
                out,
                version=version,
                training=training,
                int8=Int8(rows, force) if int8 else None,
                bf16=Bf16(rows, force) if bf16 else None,
                calibration=found.calibration,
                pictures={PICTURE: found.picture},
                accept_rounding=accept_rounding,
                content=origin,
                announce=announce,
            )
        tell_published(bundle, as_json)
