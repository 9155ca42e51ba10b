"""Measures the import of published layouts: vectors against the numpy forward in float64.

``python -m tests.text.encoder.measure_published --json`` writes folders with random weights, small
ones of every layout and precision; with ``--base`` instead the layouts named at published size.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.text.encoder import forward
from tests.text.encoder.published import BASE, LAYOUTS, SMALL, Size, write_folder
from text.encoder import checkpoint
from text.encoder.import_published import import_published
from text.encoder.published_onnx import ids_of_texts
from text.encoder.vectors import embed
from text.tokenizer import Tokens

BOUND = 1e-5
PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def measure(layout: str, size: Size, precision: str, texts: int, folder: Path) -> dict[str, Any]:
    """Import a folder and return the largest difference of unit vectors."""
    tensors = write_folder(folder / "published", layout, size, 7, PRECISIONS[precision])
    started = time.monotonic()
    about = import_published(folder / "published", folder / "own")
    seconds = time.monotonic() - started
    loaded = checkpoint.load(folder / "own")
    ids = [each[0] for each in ids_of_texts(loaded.tokenizer)][:texts]
    flat = np.concatenate(ids).astype(np.int32)
    offsets = np.cumsum([0, *map(len, ids)]).astype(np.int64)
    vectors = embed(loaded.network, Tokens(flat, flat, offsets))
    worst = 0.0
    for own, vector in zip(ids, vectors, strict=True):
        expected = forward.encode(tensors, own, size.heads).mean(0)
        worst = max(worst, float(np.abs(vector - expected / np.linalg.norm(expected)).max()))
    return {
        "layout": layout,
        "variant": about["sizes"]["variant"],
        "hidden": size.hidden,
        "layers": size.layers,
        "precision": precision,
        "tokens": [len(own) for own in ids],
        "import_seconds": round(seconds, 2),
        "largest_difference": worst,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print figures as JSON")
    parser.add_argument("--base", metavar="LAYOUT,…", help="layouts at published size")
    options = parser.parse_args()
    runs = [(layout, SMALL, precision, 5) for layout in LAYOUTS for precision in PRECISIONS]
    if options.base:
        runs = [(layout, BASE, "float16", 3) for layout in options.base.split(",")]
    results = []
    for run in runs:
        with tempfile.TemporaryDirectory() as folder:
            results.append(measure(*run, Path(folder)))
        if not options.json:
            print(*results[-1].values())
    worst = max(result["largest_difference"] for result in results)
    if options.json:
        print(json.dumps({"bound": BOUND, "largest_difference": worst, "runs": results}))
    if not worst <= BOUND:
        raise SystemExit(f"largest difference {worst:.1e}, beyond {BOUND:g}")


if __name__ == "__main__":
    main()
