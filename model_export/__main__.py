"""``python -m model_export``: from a checkpoint to a verified bundle."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console

from feature_store.schema import FeatureSchema, SchemaError
from model_export.bundle import Bundle, digest
from model_export.errors import BundleError
from model_export.manifest import MANIFEST, Training
from model_export.progress import steps
from model_export.report import print_info
from model_export.signature import PublicKeys, read_signature
from model_export.signature import sign as sign_bundle
from model_export.verify import verify as verify_bundle

if TYPE_CHECKING:
    from training.qin import QIN

app = typer.Typer(
    help="Fold a trained network into a bundle of ONNX graphs, and check one.",
    no_args_is_help=True,
    add_completion=False,
)
BundlePath = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle's folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@app.command()
def build(
    checkpoint: Annotated[
        Path | None, typer.Argument(metavar="[CHECKPOINT]", help="A checkpoint's folder.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Models folder; the bundle is OUT/VERSION.")] = Path(
        "var/models"
    ),
    version: Annotated[
        str | None, typer.Option(help="Name of the bundle; the time in UTC by default.")
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Random weights in place of a checkpoint.")
    ] = False,
    schema: Annotated[
        Path | None, typer.Option(help="With --random: schema file (MicroLens by default).")
    ] = None,
    seed: Annotated[int, typer.Option(help="With --random.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fold CHECKPOINT and publish it, unless a golden answer is off by more than 1e-5."""
    if (checkpoint is None) != random:
        raise typer.BadParameter("give either a CHECKPOINT or --random")
    with _refusals():
        from model_export.build import STEPS
        from model_export.build import build as build_bundle

        with steps(("load the network", *STEPS)) as announce:
            announce("load the network")
            if checkpoint is None:
                network, training = _random(schema, seed), Training()
            else:
                network, training = _trained(checkpoint)
            bundle = build_bundle(
                network, out, version=version, training=training, announce=announce
            )
        parity = bundle.manifest.parity
        if as_json:
            _print_json(
                {"version": bundle.version, "path": str(bundle.path), **parity.model_dump()}
            )
            return
        typer.echo(
            f"published {bundle.path}: worst |Δp| {parity.max_abs_error:.2g} over {parity.cases} "
            f"golden answers ({parity.worst_case})"
        )


@app.command()
def verify(
    bundle: BundlePath,
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file; then it must be signed by a key in it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check digests, signature, schema, inputs and outputs, golden answers, without torch."""
    with _refusals():
        checked, difference = verify_bundle(bundle)
        signed = _signed(checked, public_key)
        if as_json:
            _print_json(
                {
                    "version": checked.version,
                    "signature": signed,
                    "max_abs_error": difference.max_abs_error,
                    "worst_case": difference.worst_case,
                    "cases": difference.cases,
                }
            )
            return
        typer.echo(
            f"{checked.path}: {len(checked.manifest.files)} files as published, signatures fit the "
            f"schema, worst |Δp| {difference.max_abs_error:.2g} over {difference.cases} golden "
            f"answers; {signed}"
        )


@app.command()
def sign(
    bundle: BundlePath,
    key: Annotated[Path, typer.Option(help="Ed25519 private key, PEM.")],
    as_json: AsJson = False,
) -> None:
    """Sign the manifest, and with it every file it names; services check it (QIN_PUBLIC_KEY)."""
    with _refusals():
        opened = Bundle.open(bundle)
        signer = sign_bundle(opened.path, key)
        if as_json:
            _print_json({"version": opened.version, "key": signer})
        else:
            typer.echo(f"{opened.path}: signed by key {signer}")


@app.command()
def info(bundle: BundlePath, as_json: AsJson = False) -> None:
    """What the bundle is: schema, sizes, work per candidate, parity, files."""
    with _refusals():
        opened = Bundle.open(bundle)
        if as_json:
            _print_json(opened.manifest.model_dump(mode="json"))
        else:
            print_info(opened, Console())


def _signed(bundle: Bundle, public_key: Path | None) -> str:
    """What is known of who signed it. BundleError when ``public_key`` is given and did not."""
    signature = read_signature(bundle.path)
    if public_key is not None:
        manifest = (bundle.path / MANIFEST).read_bytes()
        return (
            f"signed by key {PublicKeys.read(public_key).check(bundle.path, manifest, signature)}"
        )
    return "not signed" if signature is None else "signed; by whom takes --public-key"


def _random(schema: Path | None, seed: int) -> QIN:
    from model_export.random_network import random_network

    return random_network(
        FeatureSchema.microlens() if schema is None else FeatureSchema.read(schema), seed=seed
    )


def _trained(folder: Path) -> tuple[QIN, Training]:
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


@contextmanager
def _refusals() -> Iterator[None]:
    """What is refused on purpose is one line on stderr and exit status 1."""
    try:
        yield
    except (BundleError, SchemaError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def _print_json(content: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(content, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    app()
