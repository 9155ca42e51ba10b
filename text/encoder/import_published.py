"""Imports a published checkpoint: reads it, compares it with its graph, writes our own layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from text.encoder import checkpoint, published
from text.encoder.published_onnx import GRAPH, compare
from training.checkpoint import CheckpointError, check_out


def import_published(folder: Path, out: Path, languages: Sequence[str] = ()) -> dict[str, Any]:
    """Write the checkpoint ``out`` and return what was found.

    ``languages`` are those of its training, which no published file has: bundles of the checkpoint
    state them. Raises CheckpointError.
    """
    check_out(out)
    if out.resolve() == folder.resolve():
        raise CheckpointError(f"{out}: would replace the published folder; give another --out")
    read = published.read(folder)
    graph = folder / GRAPH
    onnx = None
    if graph.exists() or graph.is_symlink():
        onnx = asdict(compare(graph, read.network, read.tokenizer, read.is_half))
    sizes = read.network.sizes
    about = {
        "source": folder.resolve().name,
        "weights": read.weights.name,
        "precision": read.precision,
        "sizes": sizes.model_dump(),
        "parameters": sum(tensor.numel() for tensor in read.network.parameters()),
        "tokens": read.tokenizer.vocabulary,
        "special": read.tokenizer.special,
        "padding": read.tokenizer.pad,
        "unused": read.unused,
        "notes": read.notes,
        "onnx": onnx,
    }
    training = {"imported": about, "corpus": {"languages": list(languages)}}
    checkpoint.save(out, read.network, None, read.tokenizer, training)
    return about
