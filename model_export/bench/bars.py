"""The limits that the benchmark's figures must meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model_export.bundle.processor import Kind

BAR_CANDIDATES = 512  # list length of most limits


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit for one figure of a case, from below or from above."""

    name: str
    figure: str
    candidates: int
    limit: float
    at_least: bool = False
    kinds: frozenset[Kind] = frozenset({"amx", "vnni", "other"})  # of processors

    def judge(self, value: float, history: int) -> dict[str, Any]:
        return {
            "bar": self.name,
            "candidates": self.candidates,
            "history": history,
            "value": value,
            "limit": f"{'≥' if self.at_least else '≤'} {self.limit:g}",
            "met": value >= self.limit if self.at_least else value <= self.limit,
        }


AMX: frozenset[Kind] = frozenset({"amx"})
NOT_AMX: frozenset[Kind] = frozenset({"vnni", "other"})
VNNI: frozenset[Kind] = frozenset({"vnni"})
BARS = (
    Bar("eager / folded fp32", "eager_over_folded_fp32", 512, 35, True, NOT_AMX),
    Bar("plain ONNX / folded fp32", "plain_onnx_over_folded_fp32", 512, 25, True, NOT_AMX),
    Bar("folded fp32 / floor fp32", "folded_fp32_over_floor_fp32", 512, 1.10, kinds=NOT_AMX),
    Bar("folded fp32 / floor fp32", "folded_fp32_over_floor_fp32", 64, 1.15, kinds=NOT_AMX),
    Bar("fp32 of auto / floor fp32", "auto_fp32_over_floor_fp32", 512, 1.12, kinds=AMX),
    Bar("folded bf16 / floor fp32", "folded_bf16_over_floor_fp32", 512, 0.29, kinds=AMX),
    Bar("folded bf16 / floor fp32", "folded_bf16_over_floor_fp32", 64, 0.60, kinds=AMX),
    Bar("best of int8 and bf16 / floor int8", "best_low_over_floor_int8", 512, 1.5, kinds=AMX),
    Bar("folded int8 / floor int8", "folded_int8_over_floor_int8", 512, 1.5, kinds=VNNI),
    Bar("folded int8 / folded fp32", "folded_int8_over_folded_fp32", 512, 0.42),
    Bar("worst error on the probability, fp32", "max_abs_error_fp32", 512, 1e-6),
)
LINEAR = 1.10  # latency per candidate at 2,048, over that at 512
LONG_HISTORY = 1.8  # latency at 512 candidates, over that at the first history length


def bars(cases: list[dict[str, Any]], kind: Kind) -> list[dict[str, Any]]:
    """Evaluate every limit of this kind of processor for which these cases have figures."""
    first = cases[0]["history"]
    at = {(case["candidates"], case["history"]): case for case in cases}
    judged = [
        bar.judge(at[bar.candidates, first][bar.figure], first)
        for bar in BARS
        if kind in bar.kinds and at.get((bar.candidates, first), {}).get(bar.figure) is not None
    ]
    middle = at.get((BAR_CANDIDATES, first))
    if middle is None:
        return judged
    if large := at.get((4 * BAR_CANDIDATES, first)):
        ratio = large["folded_fp32_ms"] / middle["folded_fp32_ms"] / 4
        bar = Bar("folded fp32 per candidate / at 512", "", 4 * BAR_CANDIDATES, LINEAR)
        judged.append(bar.judge(ratio, first))
    for case in cases:
        if case["history"] != first:
            ratio = case["folded_fp32_ms"] / middle["folded_fp32_ms"]
            bar = Bar(f"folded fp32 / at a history of {first}", "", BAR_CANDIDATES, LONG_HISTORY)
            judged.append(bar.judge(ratio, case["history"]))
    return judged
