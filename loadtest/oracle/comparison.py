"""Compares every score with the offline answer of the model version that the answer names.

Runs after the load, on answers kept in files, so that it costs the generators nothing. Answers with
equal (request, version) share one offline answer.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from loadtest.generator.columns import Bucket, Reason
from loadtest.generator.runner import Run
from loadtest.generator.workload import EVENT

TOLERANCE = 1e-5
Scores = NDArray[np.float64]


class UnknownVersion(LookupError):
    """A version that the oracle does not have."""


@dataclass(frozen=True, slots=True)
class Notes:
    """What an answer was given without; None where it has no such member."""

    defaulted: list[str] | None = None  # features without a value
    ignored: list[str] | None = None  # features that the version does not have
    degraded: list[str] | None = field(default=None, compare=False)  # history, user or items


class Oracle(Protocol):
    """Computes offline answers."""

    @property
    def versions(self) -> tuple[str, ...]: ...

    def scores(self, version: str, request: dict[str, Any]) -> Scores:
        """Score (C,) candidates, NaN for unknown items. Raises UnknownVersion."""

    def notes(self, version: str, request: dict[str, Any]) -> Notes:
        """Name the features without a value, or left out. Raises UnknownVersion."""


@dataclass
class OracleReport:
    """Counts of checked answers; ``unchecked``: the user's history changed during the run."""

    tolerance: float = TOLERANCE
    checked: int = 0
    unchecked: int = 0
    wrong_scores: int = 0
    degraded: int = 0  # of the wrong scores, those of answers that name what they lacked
    mixed_versions: int = 0
    wrong_features: int = 0  # answers with right scores and wrong notes
    worst_error: float = 0.0
    unknown_versions: list[str] = field(default_factory=list)
    defaulted: dict[str, int] = field(default_factory=dict)  # checked answers by feature
    ignored: dict[str, int] = field(default_factory=dict)


def check_run(
    run: Run, oracle: Oracle, *, on_progress: Callable[[int, int], None] | None = None
) -> OracleReport:
    """Check all kept answers; move wrong ones from OK to WRONG with a reason."""
    report = OracleReport()
    changing, defaulted, ignored = _users_with_events(run), Counter[str](), Counter[str]()
    rows = np.flatnonzero((run.columns.answer >= 0) & (run.columns.bucket == Bucket.OK))
    report.mixed_versions = int(np.sum(run.columns.reason[run.measured] == Reason.VERSION))
    order = np.lexsort((run.columns.version[rows], run.columns.entry[rows]))
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in run.answers]
        previous, expected, named, request = None, np.empty(0), Notes(), {}
        for done, row in enumerate(rows[order].tolist()):
            if on_progress is not None and done % 256 == 0:
                on_progress(done, rows.size)
            entry = int(run.columns.entry[row])
            version = run.versions[run.columns.version[row]]
            if previous != (entry, version):
                previous, request = (entry, version), run.bank.document(entry)
                expected, named = _offline(oracle, version, request, report)
            if request["user_id"] in changing:
                report.unchecked += row >= run.first
                continue
            places, scores, notes = _read_answer(
                files[row % len(files)], int(run.columns.answer[row])
            )
            worst = worst_difference(request, expected, places, scores)
            reason = Reason.NONE
            if not worst <= TOLERANCE:
                reason = Reason.SCORES
                if notes.degraded:
                    reason = Reason.DEGRADED
                elif _is_mixed(oracle, request, scores):
                    reason = Reason.MIXED
            elif notes != named:
                reason = Reason.FEATURES
            if reason is not Reason.NONE:
                run.columns.bucket[row], run.columns.reason[row] = Bucket.WRONG, reason
            if row >= run.first:
                report.checked += 1
                report.wrong_scores += not worst <= TOLERANCE
                report.degraded += reason is Reason.DEGRADED
                report.mixed_versions += reason is Reason.MIXED
                report.wrong_features += reason is Reason.FEATURES
                report.worst_error = max(report.worst_error, worst)
                defaulted.update(notes.defaulted or ())
                ignored.update(notes.ignored or ())
    report.defaulted, report.ignored = dict(defaulted), dict(ignored)
    return report


def _offline(
    oracle: Oracle, version: str, request: dict[str, Any], report: OracleReport
) -> tuple[Scores, Notes]:
    """Compute the offline answer; infinite scores, which match nothing, for an unknown version."""
    try:
        return oracle.scores(version, request), oracle.notes(version, request)
    except UnknownVersion:
        if version not in report.unknown_versions:
            report.unknown_versions.append(version)
        return np.full(len(request["candidates"]), np.inf), Notes()


def worst_difference(
    request: dict[str, Any], expected: Scores, places: NDArray[np.uint32], scores: Scores
) -> float:
    """Compute the largest |score − offline|; infinite when only one side has a score, or when
    ``top_k`` omits a better candidate than it returns. ``places``: of the scores' candidates."""
    if request.get("top_k") is None:
        wanted = expected
    else:
        wanted = expected[places]
        known = expected[~np.isnan(expected)]
        best = np.sort(known)[::-1][: request["top_k"]]
        if best.size != places.size:
            return float("inf")
        if best.size and np.abs(np.sort(wanted)[::-1] - best).max() > TOLERANCE:
            return float("inf")
    if wanted.shape != scores.shape or (np.isnan(wanted) != np.isnan(scores)).any():
        return float("inf")
    difference = np.abs(wanted - scores)
    return float(np.nanmax(difference)) if (~np.isnan(difference)).any() else 0.0


def _is_mixed(oracle: Oracle, request: dict[str, Any], scores: Scores) -> bool:
    """Whether each score is some version's, but no single version gives them all."""
    if request.get("top_k") is not None:
        return False  # the other version's top k may differ
    answers = np.stack([oracle.scores(version, request) for version in oracle.versions])
    same = np.abs(answers - scores) <= TOLERANCE
    same |= np.isnan(answers) & np.isnan(scores)
    return bool(same.any(axis=0).all() and not same.all(axis=1).any())


def _users_with_events(run: Run) -> set[int | str]:
    entries = np.flatnonzero(run.bank.kind == EVENT)
    return {run.bank.document(int(entry))["user_id"] for entry in entries}


def _read_answer(file: Any, offset: int) -> tuple[NDArray[np.uint32], Scores, Notes]:
    file.seek(offset)
    count = int.from_bytes(file.read(8), "little")
    places = np.frombuffer(file.read(4 * count), "<u4")
    scores = np.frombuffer(file.read(8 * count), "<f8")
    length = int.from_bytes(file.read(8), "little")
    return places, scores, Notes(*orjson.loads(file.read(length)))
