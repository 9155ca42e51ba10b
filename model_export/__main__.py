"""``python -m model_export``: export checkpoints to bundles; verify, sign and show bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from feature_store.terminal import run
from model_export.bench.cli import bench, bench_top_k, bench_user
from model_export.bundle import openvino
from model_export.bundle.bundle import Bundle
from model_export.bundle.manifest import MANIFEST
from model_export.bundle.signature import PublicKeys, read_signature
from model_export.bundle.signature import sign as sign_bundle
from model_export.bundle.verify import verify as verify_bundle
from model_export.bundle.verify_openvino import verify as verify_on_openvino
from model_export.cli import options
from model_export.cli.app import print_json, refusals
from model_export.cli.build import build
from model_export.cli.calibrate import calibrate
from model_export.cli.fuxictr import import_fuxictr
from model_export.cli.report import print_info

app = typer.Typer(
    help="Export a trained network to a bundle of ONNX graphs; verify, sign and show bundles.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.command()(build)
app.command()(calibrate)
app.command()(import_fuxictr)
app.command()(bench)
app.command()(bench_top_k)
app.command()(bench_user)


@app.command()
def verify(
    bundle: options.BundlePath,
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file; require a signature by a key in it.")
    ] = None,
    on_openvino: Annotated[
        bool,
        typer.Option(
            "--openvino", help="On OpenVINO, too, in float32 and bf16; requires the extra openvino."
        ),
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Verify digests, signature, schema, inputs and outputs, and golden answers, without torch."""
    with refusals():
        checked, difference = (verify_on_openvino if on_openvino else verify_bundle)(bundle)
        signed = _signed(checked, public_key)
        if as_json:
            print_json(
                {
                    "version": checked.version,
                    "signature": signed,
                    "max_abs_error": difference.max_abs_error,
                    "worst_case": difference.worst_case,
                    "cases": difference.cases,
                    "openvino": openvino.release() if on_openvino else None,
                }
            )
            return
        typer.echo(
            f"{checked.path}: {len(checked.manifest.files)} files as published, signatures fit the "
            f"schema, worst |Δp| {difference.max_abs_error:.2g} over {difference.cases} golden "
            f"answers; {signed}"
            + (f"; on OpenVINO, too (plugin {openvino.release()})" if on_openvino else "")
        )


@app.command()
def sign(
    bundle: options.BundlePath,
    key: Annotated[Path, typer.Option(help="Ed25519 private key, PEM.")],
    as_json: options.AsJson = False,
) -> None:
    """Sign the manifest, and with it every file it lists; services verify it (QIN_PUBLIC_KEY)."""
    with refusals():
        opened = Bundle.open(bundle)
        signer = sign_bundle(opened.path, key)
        if as_json:
            print_json({"version": opened.version, "key": signer})
        else:
            typer.echo(f"{opened.path}: signed by key {signer}")


@app.command()
def info(bundle: options.BundlePath, as_json: options.AsJson = False) -> None:
    """Show a bundle's schema, sizes, work per candidate, parity and files."""
    with refusals():
        opened = Bundle.open(bundle)
        if as_json:
            print_json(opened.manifest.model_dump(mode="json"))
        else:
            print_info(opened, Console())


def _signed(bundle: Bundle, public_key: Path | None) -> str:
    """Describe the signature. Raises BundleError if ``public_key`` is given and does not match."""
    signature = read_signature(bundle.path)
    if public_key is not None:
        manifest = (bundle.path / MANIFEST).read_bytes()
        return (
            f"signed by key {PublicKeys.read(public_key).check(bundle.path, manifest, signature)}"
        )
    return "not signed" if signature is None else "signed (verify it with --public-key)"


if __name__ == "__main__":
    run(app)
