"""Chooses the mode that a bundle's ranker is fastest in on this machine, by measurement.

Flags of the processor do not say which one that is: bfloat16 without AMX is slower than float32
on some processors and fast on others.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import thread_time_ns
from typing import NamedTuple

import numpy as np

from model_export.bundle import openvino
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError, said
from model_export.bundle.graphs import Precision
from model_export.bundle.reduced_golden import check_same_arithmetic
from model_export.bundle.runtime import TYPICAL, FoldedModel
from model_export.bundle.sessions import Placement, Provider, ProviderChoice
from model_export.bundle.verify import check_golden

LEAST_GAIN = 0.10  # of fp32's time: less is not worth other numbers
RESCORED = 0.10  # of a list in exact top-k, at most: 0.02 to 0.09 in docs/performance.md
SECONDS, LEAST_ROUNDS, MOST_ROUNDS = 0.4, 5, 100  # per mode
ABSENT: dict[Precision, str] = {
    "int8": "the bundle has no int8 ranker",
    "bf16": "the bundle was built without --bf16",
}


class Mode(NamedTuple):
    """A precision, and what computes in it."""

    precision: Precision
    provider: Provider

    def __str__(self) -> str:
        return f"{self.precision} on {self.provider}"


@dataclass(frozen=True, slots=True)
class Choice:
    """The mode to serve a bundle in, and the measurement behind it."""

    precision: Precision
    provider: Provider
    reason: str
    top_k: Precision  # of its shortlists; fp32: all are scored in it
    us_per_candidate: dict[str, float]  # by mode: processor time
    passed_over: dict[str, str]  # by mode: why scores are not computed in it


def candidates(provider: ProviderChoice) -> list[Mode]:
    """List the modes of a provider setting, float32 first; on a GPU there is no choice."""
    cpu, plugin = provider in ("cpu", "auto"), provider == "openvino"
    plugin = plugin or (provider == "auto" and openvino.is_installed())
    modes = [Mode("fp32", "cpu")] * cpu + [Mode("fp32", "openvino")] * plugin
    return modes + [Mode("int8", "cpu")] * cpu + [Mode("bf16", "openvino")] * plugin


def choose(bundle: Bundle, provider: ProviderChoice, rows: int) -> Choice:
    """Time the modes that may serve the bundle, on lists of ``rows`` candidates.

    A mode is passed over whose gate the bundle lacks or failed, whose answers to the golden
    requests are not those of the machine that judged it, or that fails here. Another than float32
    is taken if it is faster by LEAST_GAIN at least. Exact top-k may use one past its gate: it has
    a known error bound, and answers as float32 does. BundleError if float32 itself fails.
    """
    opened: dict[Mode, FoldedModel] = {}
    passed_over: dict[str, str] = {}
    first, *others = candidates(provider)
    opened[first] = _opened(bundle, first)
    for mode in others:
        try:
            opened[mode] = _opened(bundle, mode)
            gate = bundle.manifest.gate(mode.precision)
            if gate is not None and not gate.passed:
                passed_over[str(mode)] = f"its {mode.precision} ranker did not pass its gate"
        except BundleError as error:
            passed_over[str(mode)] = str(error)
        except Exception as error:  # onnxruntime's errors have no other common base
            passed_over[str(mode)] = said(error)
    took = timed({mode: _run(model, bundle, rows) for mode, model in opened.items()})
    return decided({mode: 1e6 * seconds / rows for mode, seconds in took.items()}, passed_over)


def decided(us: Mapping[Mode, float], passed_over: dict[str, str]) -> Choice:
    """Decide by microseconds per candidate; the first mode is the one to beat."""
    first, *rest = us
    others = [mode for mode in rest if str(mode) not in passed_over]
    best = min(others, key=us.__getitem__, default=first)
    if us[best] > (1 - LEAST_GAIN) * us[first]:
        best = first
    if best == first:
        second = min(others, key=us.__getitem__, default=None)
        reason = f"{first}: no other mode may serve this bundle here"
        if second is not None:
            reason = (
                f"{first}: no other mode is faster by {LEAST_GAIN:.0%} ({second} takes "
                f"{us[second] / us[first]:.2f} of its time)"
            )
    else:
        reason = f"{best}: it takes {us[best] / us[first]:.2f} of the time of {first}"
    figures = {str(mode): round(value, 2) for mode, value in us.items()}
    return Choice(
        best.precision, best.provider, reason, _top_k(us, first, best), figures, passed_over
    )


def _top_k(us: Mapping[Mode, float], first: Mode, best: Mode) -> Precision:
    """The precision of shortlists, if they and rescoring are faster than all in float32.

    Rescored candidates must have the bits of a longer list, which onnxruntime's own float32 gives.
    """
    if best.precision != "fp32":
        reduced = [best]
    elif best.provider == "cpu":
        reduced = [mode for mode in us if mode.precision != "fp32"]
    else:
        reduced = []
    quickest = min(reduced, key=us.__getitem__, default=None)
    if quickest is None:
        return "fp32"
    pays = us[quickest] + RESCORED * us[first] <= (1 - LEAST_GAIN) * us[first]
    return quickest.precision if pays else "fp32"


def timed(runs: Mapping[Mode, Callable[[], object]]) -> dict[Mode, float]:
    """Median seconds of processor time of each, interleaved: what else runs here counts little.

    Each is computed by the calling thread. The process's own clock would not do: under a limit of
    processor time it moves with the scheduler's ticks.
    """
    for run in runs.values():
        for _ in range(2):  # the first compiles and packs
            run()
    taken: dict[Mode, list[int]] = {mode: [] for mode in runs}
    for done in range(MOST_ROUNDS):
        if done >= LEAST_ROUNDS and sum(map(sum, taken.values())) > 1e9 * SECONDS * len(runs):
            break
        for mode, run in runs.items():
            began = thread_time_ns()
            run()
            taken[mode].append(thread_time_ns() - began)
    return {mode: statistics.median(ns) / 1e9 for mode, ns in taken.items()}


def _opened(bundle: Bundle, mode: Mode) -> FoldedModel:
    """Open a mode that may serve. BundleError or ProviderError with the reason against it."""
    gate = bundle.manifest.gate(mode.precision)
    if mode.precision != "fp32" and gate is None:
        raise BundleError(ABSENT[mode.precision])
    model = FoldedModel(bundle, precision=mode.precision, provider=Placement(mode.provider))
    if gate is not None:
        check_same_arithmetic(model, bundle.golden(), gate)
    elif mode.provider != "cpu":
        check_golden(bundle, model)
    return model


def _run(model: FoldedModel, bundle: Bundle, rows: int) -> Callable[[], object]:
    """A list of ordinary items against a full history."""
    random = np.random.default_rng(0)
    items = model.items(bundle.golden().items[:TYPICAL])
    most = len(items.vector)
    asked = items.take(random.integers(0, most, rows))
    past = items.vector[random.integers(0, most, bundle.schema.history_length)]
    history, user = model.history(past), model.user()
    return lambda: model.rank(asked, history, user)
