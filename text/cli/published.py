"""Implements ``python -m text import-jina``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from text.cli.console import AsJson, exit_on_error, language_codes, screen


def import_jina(
    folder: Annotated[
        Path, typer.Argument(help="Folder of a published JinaBERT: jina-embeddings-v2-base-de, …")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint to write.")],
    languages: Annotated[
        str,
        typer.Option(
            metavar="LANG,…", help="Of its training, for the manifests of bundles; default none."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Import a published checkpoint, compared with its own onnx/model.onnx where there is one."""
    from text.encoder.import_published import import_published

    with exit_on_error():
        about = import_published(folder, out, language_codes(languages) if languages else [])
    if as_json:
        print(json.dumps(about, ensure_ascii=False))
        return
    sizes, onnx = about["sizes"], about["onnx"]
    lines = [
        f"{out}: variant {sizes['variant']}, {sizes['layers']} layers of {sizes['hidden']}, "
        f"{about['tokens']:,} tokens, {about['parameters']:,} parameters, of {about['precision']}",
        *about["notes"],
    ]
    if onnx is None:
        lines.append("not compared: the folder has no onnx/model.onnx")
    elif onnx["verified"]:
        lines.append(
            f"agrees with onnx/model.onnx: largest difference {onnx['largest_difference']:.1e} "
            f"(at most {onnx['tolerance']:g}) in texts of {', '.join(map(str, onnx['tokens']))} "
            "tokens"
        )
    else:
        lines.append(f"not compared with onnx/model.onnx: {onnx['reason']}")
    for line in lines:
        screen.print(line, markup=False, highlight=False)
