"""Implements ``python -m text build``, ``verify``, ``info`` and ``sign``: encoder bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from text.cli.console import AsJson, exit_on_error, progress, screen
from text.runtime.manifest import MOST_LONGEST

BundleFolder = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Folder of an encoder bundle.")
]
Keys = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="PEM file of Ed25519 public keys: require a signature by one of them."
    ),
]


def build(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of an encoder's checkpoint.")],
    out: Annotated[Path, typer.Option(help="Folder of encoder bundles.")] = Path("var/encoders"),
    version: Annotated[
        str | None, typer.Option(help="Name of the bundle; default the time of the build.")
    ] = None,
    longest: Annotated[
        int, typer.Option(min=8, max=MOST_LONGEST, help="Tokens of the longest text allowed.")
    ] = 8192,
    int8: Annotated[bool, typer.Option("--int8", help="A graph with int8 products, too.")] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="CORPUS", help="With --int8: corpus of its gate.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PRODUCT", help="With --int8: leave 0.gate or so in float32; may be repeated."
        ),
    ] = None,
    content: Annotated[
        Path | None,
        typer.Option(
            metavar="MAP", help="Content map of `text content fit`: the graphs' second output."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Publish int8 even if its gate fails.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Export CHECKPOINT as an encoder bundle; fails if a vector differs from PyTorch's."""
    if int8 != (data is not None):
        raise typer.BadParameter("--int8 requires --data, the corpus of its gate, and inversely")
    if not int8 and (keep or force):
        raise typer.BadParameter("--keep and --force require --int8")
    with exit_on_error(), progress() as on_progress:
        from text.corpus.corpus import Corpus
        from text.export.build import STEPS
        from text.export.build import build as run
        from text.export.int8 import Int8

        def announce(step: str) -> None:
            on_progress(step, STEPS.index(step), len(STEPS))

        wanted = Int8(Corpus.open(data), tuple(keep or ()), force) if data else None
        bundle = run(
            checkpoint,
            out,
            version=version,
            longest=longest,
            int8=wanted,
            content=content,
            announce=announce,
        )
    parity, gates = bundle.manifest.parity, bundle.manifest.gates
    if as_json:
        about: dict[str, Any] = {"version": bundle.manifest.version, "path": str(bundle.path)}
        about |= {"gates": {name: gate.model_dump() for name, gate in gates.items()}}
        if bundle.manifest.content:
            about["content"] = bundle.manifest.content.model_dump()
        print(json.dumps(about | parity.model_dump()))
        return
    screen.print(
        f"published {bundle.path}: worst error {parity.max_abs_error:.2g} over {parity.cases} "
        f"golden texts ({parity.worst_case})",
        markup=False,
        highlight=False,
    )
    for name, gate in gates.items():
        verdict = "passed" if gate.passed else "FORCED beyond its gate"
        screen.print(
            f"{name}: {verdict}: overlap of the nearest {gate.overlap:.3f} over {gate.texts} "
            f"texts, loss of ρ {gate.rho_loss:.4f} over {gate.pairs} graded pairs",
            markup=False,
            highlight=False,
        )


def verify(bundle: BundleFolder, keys: Keys = None, as_json: AsJson = False) -> None:
    """Verify digests and signature, and that the bundle answers here as its network did."""
    with exit_on_error():
        from model_export.bundle.signature import PublicKeys
        from text.runtime.verify import verify as run

        opened, difference = run(bundle, PublicKeys.read(keys) if keys else None)
    if as_json:
        about = {
            "version": opened.manifest.version,
            "tolerance": opened.manifest.parity.tolerance,
            "max_abs_error": difference.max_abs_error,
            "worst_case": difference.worst_case,
            "cases": difference.cases,
            "content_error": difference.content_error,
        }
        print(json.dumps(about))
        return
    screen.print(
        f"{opened.path}: {difference.cases} golden texts, worst error "
        f"{difference.max_abs_error:.2g} ({difference.worst_case})",
        markup=False,
        highlight=False,
    )


def info(bundle: BundleFolder, as_json: AsJson = False) -> None:
    """Print what a bundle's manifest says, after checking its files."""
    with exit_on_error():
        from text.runtime.bundle import EncoderBundle

        opened = EncoderBundle.open(bundle)
    manifest = opened.manifest
    about = manifest.model_dump(mode="json") | {"digest": opened.digest}
    if as_json:
        print(json.dumps(about, ensure_ascii=False))
        return
    shape, lengths, parity = manifest.shape, manifest.lengths, manifest.parity
    sizes = (
        f"{shape.variant}: {shape.layers} layers, {shape.hidden} wide, {shape.heads} heads, "
        f"{shape.vocabulary:,} tokens"
    )
    trained = f", trained at {lengths.trained:,}" if lengths.trained else ""
    table = Table(show_header=False)
    table.add_row("version", manifest.version)
    table.add_row("created", manifest.created.isoformat(timespec="seconds"))
    table.add_row("languages", ", ".join(manifest.languages) or "not known")
    table.add_row("network", sizes)
    table.add_row("longest text", f"{lengths.longest:,} tokens{trained}")
    table.add_row("parity", f"{parity.max_abs_error:.2g} over {parity.cases} golden texts")
    table.add_row("digest", opened.digest)
    if manifest.content:
        content = manifest.content
        kind = f"{content.size} numbers for {content.feature}"
        table.add_row("content", f"{kind}, digest {content.digest}")
    for name, record in manifest.files.items():
        table.add_row(name, f"{record.size:,} bytes")
    screen.print(table)


def sign(
    bundle: BundleFolder,
    key: Annotated[Path, typer.Option(help="Ed25519 private key, PEM.")],
    as_json: AsJson = False,
) -> None:
    """Sign the manifest, and with it every file it lists; ``verify --keys`` requires it."""
    with exit_on_error():
        from model_export.bundle.signature import sign as run
        from text.runtime.bundle import EncoderBundle

        opened = EncoderBundle.open(bundle)
        signer = run(opened.path, key)
    if as_json:
        print(json.dumps({"version": opened.manifest.version, "key": signer}))
    else:
        screen.print(f"{opened.path}: signed by key {signer}", markup=False)
