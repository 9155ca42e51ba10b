"""Lower bounds (floors): graphs of the X×X products alone, which no fold removes."""

from __future__ import annotations

from collections.abc import Iterator

from model_export.graphs.folded_network import FoldedNetwork
from model_export.graphs.onnx_writer import GraphWriter
from model_export.graphs.quantise import per_column

FLOORS = ("floor_fp32", "floor_fp32_conv", "floor_int8")
FLOOR_BF16 = "floor_bf16"  # that of fp32, in OpenVINO's bfloat16


def floors(network: FoldedNetwork) -> Iterator[GraphWriter]:
    """Yield a graph per floor: float32 as MatMul and as 1×1 Conv, and int8."""
    X = network.schema.network_width
    shapes: dict[str, list[str | int]] = {
        "floor_fp32": ["C", X],
        "floor_fp32_conv": [1, X, 1, "C"],
        "floor_int8": ["C", X],
    }
    for name in FLOORS:
        g = GraphWriter(name, "The large products alone.")
        x = g.input("x", "float32", shapes[name])
        for number, layer in enumerate(network.layers):
            weight, out = f"weight{number}", f"h{number}"
            match name:
                case "floor_fp32":
                    x = g.node("MatMul", [x, g.constant(weight, layer.weight.T)], out)
                case "floor_fp32_conv":
                    inputs = [x, g.constant(weight, layer.weight[:, :, None, None])]
                    x = g.node("Conv", inputs, out, kernel_shape=[1, 1])
                case _:
                    levels, scale = per_column(layer.weight.T)
                    inputs = [x, g.constant(weight, levels), g.constant(f"scale{number}", scale)]
                    x = g.node("DynamicQuantizeMatMul", inputs, out, domain="com.microsoft")
        g.output(x, "float32", shapes[name])
        yield g
