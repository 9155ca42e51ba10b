"""Proves and measures the ranker on a GPU, in four minutes at most.

``python -m tests.gpu.check --json`` needs a GPU with onnxruntime's CUDA provider (onnxruntime-gpu
in place of onnxruntime); elsewhere it prints the reason why not. It builds a bundle of random
weights at the paper's sizes, compares the GPU's answers with the golden ones and with the CPU's,
and times lists of several lengths with their inputs copied to the device, as the service does. Exit
code 1: an answer is beyond its bound.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from feature_store.schema import FeatureSchema
from model_export.bench.interleave import medians
from model_export.build import build
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError, said
from model_export.bundle.manifest import TOLERANCE
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.sessions import PROVIDERS
from model_export.bundle.vectors import HistoryRows, ItemVectors
from model_export.bundle.verify import check_golden
from model_export.quality.random_network import random_network
from model_export.quality.random_rows import random_held_out
from training.qin import QINSizes

CUDA = PROVIDERS["cuda"]
SECONDS = 10.0  # of timing, per length
LENGTHS = (64, 128, 512, 2048, 8192)  # candidates
HISTORIES = (0, 1, 17, 64)


def missing() -> str | None:
    """Why there is no GPU to use; None if there is one."""
    built = onnxruntime.get_available_providers()
    if CUDA not in built:
        return f"needs a GPU: this onnxruntime is built with {', '.join(built)} alone"
    try:
        onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda")
    except Exception as error:  # onnxruntime's errors have no other common base
        return f"needs a GPU: {said(error)}"
    return None


def check(
    schema: FeatureSchema,
    *,
    sizes: QINSizes | None = None,
    provider: Any = "cuda",
    lengths: tuple[int, ...] = LENGTHS,
    seconds: float = SECONDS,
) -> dict[str, Any]:
    """Build a bundle, compare and time it. BundleError if the GPU fails or errs beyond bounds."""
    began = time.monotonic()
    network = random_network(schema, sizes)
    with tempfile.TemporaryDirectory() as folder:
        bundle = build(network, Path(folder))
        cpu, gpu = FoldedModel(bundle), FoldedModel(bundle, provider=provider)
        golden = check_golden(bundle, gpu)
        items = cpu.items(random_held_out(network).rows.items.rows[1:])
        worst = max(_errors(cpu, gpu, items, length) for length in HISTORIES)
        return {
            "onnxruntime": onnxruntime.__version__,
            "provider": gpu.placement.provider,
            "network_width": schema.network_width,
            "golden_answers": golden.cases,
            "golden_max_abs_error": golden.max_abs_error,
            "max_abs_difference_from_cpu": worst,
            "max_abs_difference_tf32": _tf32(bundle, cpu, items) if provider == "cuda" else None,
            "candidates_per_s": _rates(cpu, gpu, items, lengths, seconds),
            "met": worst <= TOLERANCE,
            "took_s": time.monotonic() - began,
        }


def _asked(
    model: FoldedModel, items: ItemVectors, count: int, length: int
) -> tuple[ItemVectors, HistoryRows]:
    random = np.random.default_rng(count)
    most = len(items.vector)
    past = items.vector[random.integers(0, most, length)]
    return items.take(random.integers(0, most, count)), model.history(past)


def _errors(cpu: FoldedModel, gpu: FoldedModel, items: ItemVectors, length: int) -> float:
    """Worst difference over lists of 1 to 300 candidates, padded and not."""
    worst = 0.0
    for count in (1, 15, 16, 17, 128, 300):
        asked, history = _asked(cpu, items, count, length)
        apart = np.abs(gpu.exact(asked, history) - cpu.exact(asked, history))
        worst = max(worst, float(np.nan_to_num(apart, nan=np.inf).max()))
    return worst


def _tf32(bundle: Bundle, cpu: FoldedModel, items: ItemVectors) -> float:
    rounded = FoldedModel(bundle, provider="cuda", tf32=True)
    asked, history = _asked(cpu, items, 512, cpu.schema.history_length)
    return float(np.abs(rounded.exact(asked, history) - cpu.exact(asked, history)).max())


def _rates(
    cpu: FoldedModel,
    gpu: FoldedModel,
    items: ItemVectors,
    lengths: tuple[int, ...],
    seconds: float,
) -> dict[str, dict[str, float]]:
    """Candidates per second by list length: one caller, a full history; CPU and GPU in turns."""
    found = {}
    for count in lengths:
        asked, history = _asked(cpu, items, count, cpu.schema.history_length)
        took = medians(
            {
                "gpu": lambda a=asked, h=history: gpu.exact(a, h),  # type: ignore[misc]
                "cpu_one_thread": lambda a=asked, h=history: cpu.exact(a, h),  # type: ignore[misc]
            },
            seconds / 2,
        )
        found[str(count)] = {name: 1e3 * count / reading.ms for name, reading in took.items()}
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of timing, per length")
    given = parser.parse_args()
    if (reason := missing()) is not None:
        print(json.dumps({"skipped": reason}) if given.json else f"skipped: {reason}")
        return 0
    try:
        found = check(FeatureSchema.microlens(), seconds=given.seconds)
    except BundleError as error:
        found = {"met": False, "reason": str(error)}
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name}: {value}")
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
