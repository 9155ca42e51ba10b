"""Measures the three large layers in int8 by onnxruntime and by OpenVINO, and their products alone.

``python -m tests.model_export.measure_int8_layers --json``: answers whether a custom operator that
computes a layer in one pass could pay. OpenVINO's int8 products have the row-wise rest of a layer
as post-operations of oneDNN. ``room`` is the fastest of the layers over the fastest of the products
alone, in one run: no operator over these products is faster by more. At LEAST_GAIN or more the exit
code is 1: the operator must be tried. Needs the package ``openvino``, which is in no extra.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_export.bench.interleave import medians
from model_export.bundle.processor import processor
from model_export.bundle.sessions import open_session
from model_export.graphs import blocks
from model_export.graphs.onnx_writer import GraphWriter
from model_export.graphs.quantise import LEVELS, per_column

WIDTH, LAYERS, SLOPE = 1024, 3, 0.1  # the paper's width
CANDIDATES = (64, 128, 512)
LEAST_GAIN = 1.3
MOST_ERROR = 0.03  # root mean square, of the outputs' standard deviation
Array = NDArray[np.float32]
Run = Callable[[], Array]
REMEDY = "needs OpenVINO's Python package: pip install openvino==2026.4.1"


class Layer(NamedTuple):
    weight: Array  # (outputs, inputs)
    bias: Array  # (outputs,)
    offset: Array  # (outputs,)
    largest: float  # |x|, for ranges of activations that are known beforehand


def random_layers(x: Array) -> tuple[list[Layer], Array]:
    """Layers of random weights, and what they make of x (C, X) in float32."""
    random = np.random.default_rng(0)
    layers = []
    for _ in range(LAYERS):
        weight = random.normal(0, 0.5 / WIDTH**0.5, (WIDTH, WIDTH)).astype(np.float32)
        bias, offset = random.normal(0, 0.1, (2, WIDTH)).astype(np.float32)
        layers.append(Layer(weight, bias, offset, float(np.abs(x).max())))
        z = x * (x @ weight.T + bias) + offset
        x = x + np.where(z > 0, z, SLOPE * z)
    return layers, x


def onnxruntime_run(layers: list[Layer], x: Array, folder: Path, *, whole: bool) -> Run:
    """The layers as the int8 graph has them; or, not ``whole``, their products alone."""
    g = GraphWriter("layers" if whole else "products", "The layers of a network, in int8.")
    out = g.input("x", "float32", ["C", WIDTH])
    for number, layer in enumerate(layers):
        weight, scale = per_column(layer.weight.T.astype(np.float64))
        inputs = [out, g.constant(f"weight{number}", weight), g.constant(f"scale{number}", scale)]
        if whole:
            inputs.append(g.constant(f"bias{number}", layer.bias))
            inputs.append(g.constant(f"offset{number}", layer.offset))
            (out,) = g.call(blocks.quadratic_int8(), inputs, [f"out{number}"], slope=SLOPE)
        else:
            out = g.node("DynamicQuantizeMatMul", inputs, f"h{number}", domain="com.microsoft")
    g.output(out, "float32", ["C", WIDTH])
    g.save(folder)
    session = open_session(folder / f"{g.name}.onnx", 1)
    return lambda: session.run(None, {"x": x})[0]


# Of OpenVINO: bf16; int8 with ranges of activations that are fixed, or by rows; products alone
FORMS: dict[str, dict[str, str]] = {
    "bf16": {"INFERENCE_PRECISION_HINT": "bf16"},
    "int8": {"INFERENCE_PRECISION_HINT": "f32"},
    "int8_rows": {
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(WIDTH),
    },
    "int8_products": {"INFERENCE_PRECISION_HINT": "f32"},
}


def openvino_run(layers: list[Layer], x: Array, form: str) -> Run:
    """The layers in one of FORMS, with a fixed number of candidates, on one thread."""
    import openvino
    from openvino import opset13 as op

    def weight_of(layer: Layer) -> Any:
        if form == "bf16":
            return op.constant(layer.weight)
        levels, scale = per_column(layer.weight.T.astype(np.float64))
        column = op.constant(scale.astype(np.float32)[:, None])
        return op.multiply(op.convert(op.constant(levels.T.copy()), np.float32), column)

    def activation(out: Any, layer: Layer) -> Any:
        if form not in ("int8", "int8_products"):
            return out
        least = op.constant(np.float32(-layer.largest * (LEVELS + 1) / LEVELS))
        most = op.constant(np.float32(layer.largest))
        return op.fake_quantize(out, least, most, least, most, 2 * (LEVELS + 1))

    given = out = op.parameter(x.shape, np.float32)
    slope = op.constant(np.array([SLOPE], np.float32))
    for layer in layers:
        product = op.matmul(activation(out, layer), weight_of(layer), False, True)
        if form == "int8_products":
            out = product
            continue
        h = op.add(product, op.constant(layer.bias[None]))
        z = op.add(op.multiply(out, h), op.constant(layer.offset[None]))
        out = op.add(out, op.prelu(z, slope))
    options = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    model = openvino.Model([op.result(out)], [given], form)
    request = openvino.Core().compile_model(model, "CPU", options | FORMS[form])
    request = request.create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))

    def run() -> Array:
        request.infer()
        return request.get_output_tensor().data

    return run


def measure(candidates: int, seconds: float) -> dict[str, Any]:
    """Medians in milliseconds in one run, the errors, and the room for an operator."""
    x = np.random.default_rng(1).normal(0, 1, (candidates, WIDTH)).astype(np.float32)
    layers, right = random_layers(x)
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[str, Run] = {
            "onnxruntime_int8": onnxruntime_run(layers, x, Path(folder), whole=True),
            "onnxruntime_int8_products": onnxruntime_run(layers, x, Path(folder), whole=False),
        }
        runs |= {f"openvino_{form}": openvino_run(layers, x, form) for form in FORMS}
        whole = [name for name in runs if not name.endswith("products")]
        errors = {
            name: float(np.square(runs[name]() - right).mean() ** 0.5 / right.std())
            for name in whole
        }
        readings = medians(runs, seconds)
    ms = {name: reading.ms for name, reading in readings.items()}
    best = min(whole, key=ms.__getitem__)
    room = ms[best] / min(ms[name] for name in ms if name not in whole)
    return {
        "candidates": candidates,
        "ms": ms,
        "error": errors,
        "best": best,
        "room": room,
        "met": room < LEAST_GAIN and max(errors.values()) < MOST_ERROR,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=4.0, help="per form and length")
    given = parser.parse_args()
    try:
        cases = [measure(candidates, given.seconds) for candidates in CANDIDATES]
    except ModuleNotFoundError as error:
        print(f"{error}: {REMEDY}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps({"processor": str(processor()), "cases": cases}))
    else:
        print(processor())
        for case in cases:
            times = ", ".join(f"{name} {ms:.2f}" for name, ms in case["ms"].items())
            print(f"{case['candidates']} candidates, ms: {times}; room {case['room']:.2f}×")
    return 0 if all(case["met"] for case in cases) else 1


if __name__ == "__main__":
    sys.exit(main())
