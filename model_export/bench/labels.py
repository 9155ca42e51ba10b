"""Labels of the benchmark's figures, in display order."""

LATENCIES = {
    "eager_ms": "published, PyTorch eager",
    "plain_onnx_ms": "published, exported to ONNX as it is",
    "shared_user_onnx_ms": "user's side shared, unfolded, ONNX",
    "folded_fp32_ms": "folded, fp32",
    "floor_fp32_ms": "floor fp32: its X×X products alone",
    "floor_fp32_conv_ms": "the same products as 1×1 convolutions",
    "folded_int8_ms": "folded, int8 products",
    "floor_int8_ms": "floor int8: its X×X products alone",
    "folded_fp32_openvino_ms": "folded, fp32 on OpenVINO",
    "folded_bf16_ms": "folded, bf16 on OpenVINO",
    "floor_bf16_ms": "floor bf16: its X×X products alone, on OpenVINO",
    "item_tower_ms": "item tower, all candidates (once per version)",
    "history_tower_ms": "history tower (once per request)",
}
DRAWN = (*tuple(LATENCIES)[:5], "folded_int8_ms", "floor_int8_ms", "folded_bf16_ms")
FIGURES = {
    "eager_over_folded_fp32": ("eager / folded fp32", ".1f"),
    "plain_onnx_over_folded_fp32": ("plain ONNX / folded fp32", ".1f"),
    "folded_fp32_over_floor_fp32": ("folded fp32 / floor fp32", ".3f"),
    "folded_int8_over_folded_fp32": ("folded int8 / folded fp32", ".3f"),
    "folded_bf16_over_floor_fp32": ("folded bf16 / floor fp32", ".3f"),
    "auto_fp32_over_floor_fp32": ("fp32 of auto / floor fp32", ".3f"),
    "folded_int8_over_floor_int8": ("folded int8 / floor int8", ".3f"),
    "best_low_over_floor_int8": ("best of int8 and bf16 / floor int8", ".3f"),
    "folded_fp32_us_per_candidate": ("folded fp32, µs per candidate", ".1f"),
    "folded_int8_us_per_candidate": ("folded int8, µs per candidate", ".1f"),
    "folded_bf16_us_per_candidate": ("folded bf16, µs per candidate", ".1f"),
    "max_abs_error_fp32": ("worst error on the probability, fp32", ".1e"),
    "max_abs_error_int8": ("the same, int8", ".1e"),
    "max_abs_error_bf16": ("the same, bf16", ".1e"),
    "rank_correlation_int8": ("Kendall τ, int8 against fp32", ".4f"),
    "rank_correlation_bf16": ("the same, bf16", ".4f"),
}
RATES = {  # modes whose µs, GFLOP/s and share of the peak are shown
    "eager": "published, PyTorch eager",
    "plain_onnx": "published, exported to ONNX as it is",
    "folded_fp32": "folded, fp32",
    "folded_fp32_openvino": "folded, fp32 on OpenVINO",
    "folded_bf16": "folded, bf16 on OpenVINO",
    "folded_int8": "folded, int8 products",
    "floor_fp32": "floor fp32",
    "floor_bf16": "floor bf16",
    "floor_int8": "floor int8",
}


def figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
