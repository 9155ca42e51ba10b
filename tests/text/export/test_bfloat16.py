"""onnxruntime's CPU provider has no products in bfloat16, so that bundles have no such graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

CONTRIB = "com.microsoft"
FAST = "mlas.enable_gemm_fastmath_arm64_bfloat16"
ROWS, INPUTS, OUTPUTS = 64, 192, 32


def write(path: Path, kind: str, domain: str, number: int, weight: NDArray[np.float32]) -> None:
    """Write x -> Cast -> product with a weight -> Cast, in the number format ``number``."""
    half = number == TensorProto.BFLOAT16
    raw = (weight.view(np.uint32) >> 16).astype(np.uint16) if half else weight
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["a"], to=number),
            helper.make_node(kind, ["a", "w"], ["b"], domain=domain),
            helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT),
        ],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, OUTPUTS])],
        [helper.make_tensor("w", number, weight.shape, raw.tobytes(), raw=True)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(CONTRIB, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)


def opened(path: Path, fast: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry(FAST, fast)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    ("kind", "domain"), [("MatMul", ""), ("Gemm", ""), ("FusedMatMul", CONTRIB)]
)
def test_the_runtime_has_no_products_in_bfloat16(kind: str, domain: str, tmp_path: Path) -> None:
    """If a release has them, a graph with them may go through the gate as int8 does."""
    random = np.random.default_rng(0)
    x, weight = (
        random.normal(size=shape).astype(np.float32)
        for shape in ((ROWS, INPUTS), (INPUTS, OUTPUTS))
    )
    exact = x.astype(np.float64) @ weight
    for fast in "01":
        write(tmp_path / "half.onnx", kind, domain, TensorProto.BFLOAT16, weight)
        with pytest.raises(Exception, match="NOT_IMPLEMENTED"):
            opened(tmp_path / "half.onnx", fast)
        write(tmp_path / "single.onnx", kind, domain, TensorProto.FLOAT, weight)
        (found,) = opened(tmp_path / "single.onnx", fast).run(None, {"x": x})
        assert np.abs(found - exact).max() <= 1e-5 * np.abs(exact).max()  # bfloat16: about 1e-3
