"""The gate of int8 and bf16: measures the differences from float32 on held-out data and limits
them.

int8 quantises activations by the range of the whole list, so errors grow with its length. Some
lists are therefore padded with items of the catalogue to the length of a chunk in service.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_export.bundle.errors import GateError
from model_export.bundle.extremes import magnitude
from model_export.bundle.golden import Golden
from model_export.bundle.manifest import (
    MOST_DELTA_AUC,
    MOST_MEAN_DELTA_P,
    Largest,
    QuantisationGate,
)
from model_export.bundle.rank_correlation import kendall_tau
from model_export.bundle.reduced_golden import golden_logit_error
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.shortlist import largest_shared
from model_export.bundle.vectors import HistoryRows, ItemVectors, UserRow
from model_export.quality.held_out import HeldOut, UserList
from training.data.catalogue import Catalogue
from training.evaluation.metrics import auc, logloss

MOST_LISTS = 10_000
LEAST_OF_A_CLASS = 30  # rows: of fewer, AUC is the same in any number format
FILLED_LISTS, FILLED_TO = 256, 512
Floats = NDArray[np.float64]
Request = tuple[ItemVectors, HistoryRows, UserRow | None]


@dataclass(slots=True)
class _Logits:
    """Logits (C,) of every list, in float32 and in the reduced precision, and the largest numbers
    of candidates."""

    exact: list[Floats]
    quick: list[Floats]
    label: list[NDArray[np.float32]]
    tau: list[float]
    largest: list[Largest]

    def note(self, candidates: ItemVectors, history: HistoryRows, user: UserRow | None) -> None:
        self.largest.append(
            Largest(
                vector=float(magnitude(candidates.vector).max()),
                row=float(magnitude(candidates.row).max()),
                **{"user": 0.0, "user_row": 0.0, **largest_shared(history, user)},
            )
        )

    def add(self, exact: Floats, quick: Floats, label: NDArray[np.float32]) -> None:
        self.exact.append(exact)
        self.quick.append(quick)
        self.label.append(label)
        if len(exact) > 1:
            self.tau.append(kendall_tau(exact, quick))


def measure(
    model: FoldedModel, held_out: HeldOut, golden: Golden, forced: bool
) -> QuantisationGate:
    """Measure a ``model`` of int8 or bf16, on the same lists every time.

    Raises GateError if it fails, unless ``forced``.
    """
    random, items = np.random.default_rng(0), held_out.rows.items
    seen = _Logits([], [], [], [], [])
    for number, users in enumerate(held_out.lists(MOST_LISTS)):
        asked = users.filled(items, FILLED_TO, random) if number < FILLED_LISTS else users
        request = _request(model, items, asked)
        seen.add(*_logits(model, *request), asked.label)
        seen.note(*request)
    gate = _judged(seen, held_out.name, forced, golden_logit_error(model, golden))
    if (few := _fewest(held_out.rows.label)) < LEAST_OF_A_CLASS and not forced:
        raise GateError(
            f"version {model.version} is not published: {gate.data} has {few} labels of a class, "
            f"and |ΔAUC| needs {LEAST_OF_A_CLASS} of each; use more rows, publish it without "
            f"--{model.precision}, or with --force to accept that"
        )
    if not (gate.passed or forced):
        raise GateError(
            f"version {model.version} is not published: {model.precision} differs too much on "
            f"{gate.data}: |ΔAUC| {gate.delta_auc:.2g} (at most {MOST_DELTA_AUC:g} is allowed), "
            f"mean |Δp| {gate.mean_abs_delta_p:.2g} (at most {MOST_MEAN_DELTA_P:g}); publish it "
            f"without --{model.precision}, or with --force to accept that"
        )
    return gate


def _request(model: FoldedModel, items: Catalogue, asked: UserList) -> Request:
    used, place = np.unique(np.concatenate([asked.history, asked.candidates]), return_inverse=True)
    vectors = model.items(items.rows[used])
    past, candidates = np.split(place, [len(asked.history)])
    history = model.history(vectors.vector[past])
    chosen = model.in_context(vectors.take(candidates), asked.context)
    return chosen, history, model.user(asked.user, asked.request)


def _logits(
    model: FoldedModel, candidates: ItemVectors, history: HistoryRows, user: UserRow | None
) -> tuple[Floats, Floats]:
    return (
        model.logits(candidates, history, "fp32", user).astype(np.float64),
        model.logits(candidates, history, model.precision, user).astype(np.float64),
    )


def _judged(seen: _Logits, data: str, forced: bool, golden_error: float) -> QuantisationGate:
    exact, quick = np.concatenate(seen.exact), np.concatenate(seen.quick)
    label = np.concatenate(seen.label)
    labelled = ~np.isnan(label)
    p, q, y = _sigmoid(exact), _sigmoid(quick), label[labelled]
    delta_auc = abs(auc(quick[labelled], y) - auc(exact[labelled], y))
    mean = float(np.abs(q - p).mean())
    enough = _fewest(y) >= LEAST_OF_A_CLASS
    passed = bool(enough and delta_auc <= MOST_DELTA_AUC and mean <= MOST_MEAN_DELTA_P)
    return QuantisationGate(
        passed=passed,
        forced=forced and not passed,
        data=data,
        rows=int(labelled.sum()),
        scored=len(p),
        delta_auc=delta_auc,
        delta_logloss=logloss(q[labelled], y) - logloss(p[labelled], y),
        max_abs_delta_p=float(np.abs(q - p).max()),
        mean_abs_delta_p=mean,
        kendall_tau=float(np.mean(seen.tau)) if seen.tau else 1.0,
        users=len(seen.tau),
        logit_error_bound=float(np.abs(quick - exact).max()),
        better_half_logit_error=max(map(_better_half_error, seen.exact, seen.quick)),
        largest=_most(seen.largest),
        golden_logit_error=golden_error,
    )


def _fewest(label: NDArray[np.float32]) -> int:
    """Count the labels of the class that has fewer; those that are NaN are none."""
    return int(min((label == 1).sum(), (label == 0).sum()))


def _most(each: list[Largest]) -> Largest:
    names = Largest.model_fields
    return Largest(**{name: max(getattr(one, name) for one in each) for name in names})


def _better_half_error(exact: Floats, quick: Floats) -> float:
    """Worst |Δlogit| of a list's candidates at or above its median."""
    return float(np.abs(quick - exact)[exact >= np.median(exact)].max())


def _sigmoid(logit: Floats) -> Floats:
    return 1 / (1 + np.exp(-logit))
