"""Shared by the commands: error messages, and the networks to export."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import typer

from feature_store.schema import FeatureSchema, SchemaError
from feature_store.terminal import printable
from feature_store.wording import with_file
from model_export.bundle.bundle import digest
from model_export.bundle.errors import BundleError
from model_export.bundle.manifest import Training

if TYPE_CHECKING:
    from model_export.quality.held_out import HeldOut
    from training.qin import QIN


@contextmanager
def refusals() -> Iterator[None]:
    """Print expected errors as one line on stderr and exit with status 1."""
    try:
        yield
    except (BundleError, SchemaError, OSError) as error:
        if isinstance(error, OSError) and error.filename is None:  # of stdout
            raise
        typer.echo(f"error: {printable(with_file(error))}", err=True)
        raise typer.Exit(1) from None


def print_json(content: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def trained(folder: Path) -> tuple[QIN, Training]:
    """Load the network of a checkpoint, and its origin."""
    from training import checkpoint

    try:
        network, metrics = checkpoint.load(folder), checkpoint.read_metrics(folder)
    except checkpoint.CheckpointError as error:
        raise BundleError(str(error)) from error
    return network, Training(
        checkpoint=folder.resolve().name,
        weights_sha256=digest(folder / checkpoint.WEIGHTS).sha256,
        metrics=metrics,
    )


def untrained(schema: Path | None, seed: int) -> QIN:
    """Make a network with random weights for a schema file (MicroLens by default)."""
    from model_export.quality.random_network import random_network

    return random_network(
        FeatureSchema.microlens() if schema is None else FeatureSchema.read(schema), seed=seed
    )


def held_out(
    network: QIN,
    data: Path | None,
    checkpoint: Path | None,
    cache: Path | None,
    users: Path | None,
) -> HeldOut:
    """The rows of ``data``; users of its users file or of ``users``, else of the checkpoint's.
    Random rows without ``data``: for a random network."""
    from model_export.quality.held_out import HeldOut
    from model_export.quality.random_rows import random_held_out
    from training.checkpoint import USER_INDEX

    if data is None:
        return random_held_out(network)
    index = None if checkpoint is None else checkpoint / USER_INDEX
    return HeldOut.read(data, network.schema, cache, users, index)
