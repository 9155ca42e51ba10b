"""Runs the benchmark.

Variants are timed interleaved in one process, by median. Unfolded ones start from item features,
one row per candidate, as the published network does; folded ones from precomputed item rows (the
towers that compute them are timed separately).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from model_export.bench.bars import BAR_CANDIDATES, bars
from model_export.bench.costs import catalogue_costs, ranker_costs
from model_export.bench.floors import FLOOR_BF16
from model_export.bench.graphs import FP32_OPENVINO, Floors, Folded, SharedUser, write_graphs
from model_export.bench.interleave import Run, medians
from model_export.bench.peaks import PEAK_OF, peaks, rates
from model_export.bench.peaks import SIZE as PEAK_SIZE
from model_export.bench.request import Request, random_items
from model_export.bench.unfolded import Published
from model_export.bench.work import work
from model_export.bundle import openvino
from model_export.bundle.bundle import Bundle
from model_export.bundle.graphs import Precision
from model_export.bundle.processor import processor
from model_export.bundle.rank_correlation import kendall_tau
from training.progress import OnProgress, no_progress
from training.qin import QIN

TIMED = (
    "eager",  # as published, in PyTorch
    "plain_onnx",  # the same, exported as it is
    "shared_user_onnx",  # unfolded, the user's side computed once
    "folded_fp32",
    "folded_int8",
    "floor_fp32",  # the large products alone, as MatMul
    "floor_fp32_conv",  # the same as 1×1 convolutions
    "floor_int8",
    "item_tower",
    "history_tower",
)
BF16 = "folded_bf16"
ELSEWHERE = (FP32_OPENVINO, BF16, FLOOR_BF16)  # where plugin and processor have it
# mode → whose arithmetic it does, where its name does not begin with it
WORK_OF = {"eager": "published", "plain_onnx": "published", "shared_user_onnx": "shared_user"}


@dataclass(frozen=True, slots=True)
class Subject:
    """The network to measure."""

    network: Callable[[int], QIN]  # history length -> a network in eval mode
    name: str
    bundle: Bundle | None = None  # use its graphs instead of folding ``network``


def run(
    subject: Subject,
    *,
    candidates: list[int],
    history: list[int],
    threads: int = 1,
    seconds: float = 1.0,
    announce: OnProgress = no_progress,
) -> dict[str, Any]:
    """Measure every list length at the first history length, others at 512 candidates only.

    ``seconds``: approximate time per variant and case after warm-up; a variant whose single run
    takes longer is read once.
    """
    torch.set_num_threads(threads)
    began, cases = time.monotonic(), list[dict[str, Any]]()
    counted: dict[int, dict[str, Any]] = {}  # history length → work
    first, *others = history
    steps = _steps(len(candidates) + len(others) + 1, announce)
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(subject, Path(folder), first, threads, seconds)
        counted[first] = work(bench.network, first)
        for count in candidates:
            steps(f"{count} candidates, history of {first}")
            cases.append(bench.case(count))
        steps("overheads")
        costs = bench.costs()
        width = bench.network.schema.network_width
        peak = peaks(Path(folder), threads, seconds, min(PEAK_SIZE, 4 * width))
    for length in others:
        with tempfile.TemporaryDirectory() as folder:
            steps(f"{BAR_CANDIDATES} candidates, history of {length}")
            bench = _Bench(subject, Path(folder), length, threads, seconds)
            counted[length] = work(bench.network, length)
            cases.append(bench.case(BAR_CANDIDATES))
    for case in cases:
        _add_rates(case, counted[case["history"]], peak)
    here = processor()
    steps("done")
    return {
        "subject": subject.name,
        "threads": threads,
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__.partition("+")[0],
        "processor": str(here),
        "processor_kind": here.kind,
        "openvino": openvino.release(),
        "peak_gflops": peak,
        "network_width": width,
        "took_s": time.monotonic() - began,
        "work": counted[first],
        "cases": cases,
        **costs,
        "bars": bars(cases, here.kind),
    }


def _steps(total: int, announce: OnProgress) -> Callable[[str], None]:
    done = iter(range(total + 1))
    return lambda what: announce(what, next(done), total)


class _Bench:
    """All variants at one history length."""

    def __init__(
        self, subject: Subject, folder: Path, history: int, threads: int, seconds: float
    ) -> None:
        self.network, self.history = subject.network(history), history
        self.threads, self.seconds = threads, seconds
        self.folder = write_graphs(self.network, folder)
        self.random = np.random.default_rng(0)
        rows = random_items(self.network.schema, self.random)
        self.published = Published(self.network, rows)
        plugin = openvino.is_usable()
        self.own = Folded(self.folder, threads, rows, plugin=plugin)
        self.bundle, self.folded = subject.bundle, self.own
        if self.bundle is not None:
            self.folded = Folded(self.bundle, threads, rows, plugin=plugin)
        self.shared = SharedUser(self.folder, threads)
        self.floors = Floors(self.folder, threads, bf16=plugin and openvino.has_bf16())

    def case(self, candidates: int) -> dict[str, Any]:
        """Measure latencies, their ratios, and the errors of float32, int8 and bf16."""
        request = Request.random(candidates, self.history, self.random)
        timed = medians(self._runs(request), self.seconds)
        ms: dict[str, float | None] = {
            f"{name}_ms": timed[name].ms if name in timed else None for name in (*TIMED, *ELSEWHERE)
        }
        return {
            "candidates": candidates,
            "history": self.history,
            **ms,
            "repeats": {name: timed[name].repeats for name in timed},
            "eager_over_folded_fp32": _ratio(ms, "eager", "folded_fp32"),
            "plain_onnx_over_folded_fp32": _ratio(ms, "plain_onnx", "folded_fp32"),
            "folded_fp32_over_floor_fp32": _ratio(ms, "folded_fp32", "floor_fp32"),
            "folded_int8_over_folded_fp32": _ratio(ms, "folded_int8", "folded_fp32"),
            "folded_bf16_over_floor_fp32": _ratio(ms, BF16, "floor_fp32"),
            "auto_fp32_over_floor_fp32": _best_ratio(ms, ("folded_fp32", FP32_OPENVINO), "fp32"),
            "folded_int8_over_floor_int8": _ratio(ms, "folded_int8", "floor_int8"),
            "best_low_over_floor_int8": _best_ratio(ms, ("folded_int8", BF16), "int8"),
            **self._errors(request),
        }

    def _runs(self, request: Request) -> dict[str, Run]:
        items, _ = self.own.prepare(request)
        plain = self.folder.path / "plain_onnx.onnx"
        return {
            "eager": self.published.eager(request),
            "plain_onnx": self.published.exported(request, plain, self.threads),
            "shared_user_onnx": self.shared.run(
                items, self.own.items.vector[request.history], self.own.user
            ),
            **self.folded.runs(request),
            **self.floors.runs(len(request.candidates)),
        }

    def _errors(self, request: Request) -> dict[str, float | None]:
        """Errors of the probability against the network in float64.

        Without a bundle's network: of float32 against golden answers, of int8 and bf16 against
        float32.
        """
        items, history = self.folded.prepare(request)
        fp32 = self.folded.logits(items, history, "fp32")
        if self.bundle is None:
            exact = self.published.in_float64(request)
            served = self.folded.probabilities(items, history)
            error = float(np.abs(served - exact).max())
        else:
            exact = _sigmoid(fp32)
            error = self.bundle.golden().compare(self.folded.model).max_abs_error
        errors: dict[str, float | None] = {"max_abs_error_fp32": error}
        lows: tuple[Precision, ...] = ("int8", "bf16")
        for low in lows:
            has = low in self.folded.precisions
            logit = self.folded.logits(items, history, low) if has else None
            errors[f"max_abs_error_{low}"] = (
                None if logit is None else float(np.abs(_sigmoid(logit) - exact).max())
            )
            errors[f"rank_correlation_{low}"] = (
                None if logit is None else float(kendall_tau(fp32, logit))
            )
        return errors

    def costs(self) -> dict[str, Any]:
        request = Request.random(BAR_CANDIDATES, self.history, self.random)
        return {
            "ranker": ranker_costs(self.folder, self.own, request, self.seconds, self.threads),
            "catalogue": catalogue_costs(self.folded, request, self.seconds),
        }


def _ratio(ms: dict[str, float | None], over: str, under: str) -> float | None:
    above, below = ms[f"{over}_ms"], ms[f"{under}_ms"]
    return above / below if above is not None and below else None


def _best_ratio(ms: dict[str, float | None], names: tuple[str, ...], floor: str) -> float | None:
    """The fastest of these over a floor; the fastest is what precision=auto takes."""
    took = [value for name in names if (value := ms[f"{name}_ms"]) is not None]
    below = ms[f"floor_{floor}_ms"]
    return min(took) / below if took and below else None


def _add_rates(case: dict[str, Any], work: dict[str, Any], peak: dict[str, float]) -> None:
    """Add what each mode reaches of this machine's peak."""
    each = work["multiply_adds_per_candidate"]
    for name, product in PEAK_OF.items():
        ms = case[f"{name}_ms"]
        adds = each[WORK_OF.get(name, name.partition("_")[0])]
        figures = {"us_per_candidate": None, "gflops": None, "share_of_peak": None}
        if ms is not None and adds:
            gflop = 2e-9 * adds * case["candidates"]
            figures = rates(ms, gflop, case["candidates"], peak.get(product))
        case.update({f"{name}_{figure}": value for figure, value in figures.items()})


def _sigmoid(logit: NDArray[np.float32]) -> NDArray[np.float64]:
    probability: NDArray[np.float64] = 1 / (1 + np.exp(-logit.astype(np.float64)))
    return probability
