"""Switches of versions with their encoders, under load.

``python -m tests.service.measure_encoder_swap [--switches 20] [--clients 4] [--json]`` two
versions, each trained with another encoder's contents, and asks for scores of inline and stored
items and for vectors over real connections, while it activates one version after the other; every
other time the old one is unloaded, so that its encoder is loaded again. Exit code 1 if an answer
was an error, wrong or mixed.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from tests.service.encoder_swap import make_swap_world, run


def main(
    switches: Annotated[int, typer.Option(help="Activations.")] = 20,
    clients: Annotated[int, typer.Option(help="Connections that ask.")] = 4,
    workers: Annotated[int, typer.Option(help="Processes of the service.")] = 1,
    pause_s: Annotated[float, typer.Option(help="Between two activations.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outcome = run(make_swap_world(Path(folder)), switches, pause_s, clients, workers)
    figures = asdict(outcome)
    took = figures.pop("switch_ms")
    figures["switch_ms_median"] = float(np.median(took))
    figures["switch_ms_most"] = max(took)
    typer.echo(json.dumps(figures) if as_json else figures)
    if outcome.errors or outcome.wrong or outcome.mixed or len(outcome.answers) < 2:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
