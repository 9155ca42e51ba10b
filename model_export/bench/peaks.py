"""Measures this machine's peak: one large product by each library, in the precision of a mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from model_export.bench.interleave import Run, medians
from model_export.bundle import openvino
from model_export.bundle.sessions import open_session
from model_export.graphs.onnx_writer import GraphWriter
from model_export.graphs.quantise import per_column

SIZE = 2048  # of each dimension: 8.6 G multiply-adds, whose factors no second-level cache holds
# mode → the product that it is measured against
PEAK_OF = {
    "eager": "torch_fp32",
    "plain_onnx": "fp32",
    "shared_user_onnx": "fp32",
    "folded_fp32": "fp32",
    "folded_fp32_openvino": "fp32",
    "folded_int8": "int8",
    "folded_bf16": "bf16",
    "floor_fp32": "fp32",
    "floor_fp32_conv": "fp32",
    "floor_int8": "int8",
    "floor_bf16": "bf16",
}


def peaks(folder: Path, threads: int, seconds: float, size: int = SIZE) -> dict[str, float]:
    """GFLOP/s of a product of ``size``³ multiply-adds: fp32 and int8 in onnxruntime, bf16 in
    OpenVINO where plugin and processor have it, fp32 in torch. Interleaved, by median."""
    random = np.random.default_rng(0)
    x = random.normal(0, 1, (size, size)).astype(np.float32)
    for graph in _graphs(random.normal(0, 1, (size, size)), size):
        graph.save(folder)
    sessions = {
        name: open_session(folder / f"peak_{name}.onnx", threads) for name in ("fp32", "int8")
    }
    if openvino.is_usable() and openvino.has_bf16():
        sessions["bf16"] = open_session(folder / "peak_fp32.onnx", threads, "openvino", bf16=True)
    runs: dict[str, Run] = {name: _run(session, x) for name, session in sessions.items()}
    tensor = torch.from_numpy(x)
    runs["torch_fp32"] = lambda: torch.matmul(tensor, tensor)
    return {name: 2e-6 * size**3 / found.ms for name, found in medians(runs, seconds).items()}


def rates(ms: float, gflop: float, candidates: int, peak: float | None) -> dict[str, Any]:
    """Figures of one mode: per candidate, per second, and of the peak (None where unknown)."""
    gflops = 1e3 * gflop / ms
    return {
        "us_per_candidate": 1e3 * ms / candidates,
        "gflops": gflops,
        "share_of_peak": None if peak is None else gflops / peak,
    }


def _run(session: onnxruntime.InferenceSession, x: np.ndarray[Any, Any]) -> Run:
    return lambda: session.run(None, {"x": x})


def _graphs(weight: np.ndarray[Any, Any], size: int) -> list[GraphWriter]:
    graphs = []
    for name in ("fp32", "int8"):
        g = GraphWriter(f"peak_{name}", "One large product.")
        x = g.input("x", "float32", ["C", size])
        if name == "fp32":
            y = g.node("MatMul", [x, g.constant("weight", weight)], "y")
        else:
            levels, scale = per_column(weight)
            inputs = [x, g.constant("weight", levels), g.constant("scale", scale)]
            y = g.node("DynamicQuantizeMatMul", inputs, "y", domain="com.microsoft")
        g.output(y, "float32", ["C", size])
        graphs.append(g)
    return graphs
