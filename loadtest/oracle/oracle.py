"""Is every score right? Each one is held against the offline answer of the version it names.

Asked after the run, of the answers kept in files, so that it costs the generator nothing. Answers
with equal (request, version) need one offline answer between them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loadtest.experiments.stub import stub_scores
from loadtest.generator.columns import Bucket, Reason
from loadtest.generator.runner import Run
from loadtest.generator.workload import EVENT

TOLERANCE = 1e-5
Scores = NDArray[np.float64]


class UnknownVersion(LookupError):
    """The oracle has no bundle of that version."""


class Oracle(Protocol):
    """The offline answer."""

    @property
    def versions(self) -> tuple[str, ...]: ...

    def scores(self, version: str, request: dict[str, Any]) -> Scores:
        """(C,) for the request's candidates, NaN for items nobody knows; UnknownVersion."""


@dataclass(frozen=True)
class StubOracle:
    """What an honest ``loadtest stub`` answers."""

    versions: tuple[str, ...] = ("stub-1", "stub-2")

    def scores(self, version: str, request: dict[str, Any]) -> Scores:
        if version not in self.versions:
            raise UnknownVersion(version)
        return stub_scores(
            version, request["user_id"], np.array(request["candidates"], dtype=np.int64)
        )


@dataclass
class OracleReport:
    """``unchecked``: answers to users who clicked during the run (their history was moving)."""

    tolerance: float = TOLERANCE
    checked: int = 0
    unchecked: int = 0
    wrong_scores: int = 0
    mixed_versions: int = 0
    worst_error: float = 0.0
    unknown_versions: list[str] = field(default_factory=list)


def check_run(
    run: Run, oracle: Oracle, *, on_progress: Callable[[int, int], None] | None = None
) -> OracleReport:
    """Check every kept answer; wrong ones leave the OK bucket for WRONG, with the reason."""
    report = OracleReport()
    moving = _users_with_events(run)
    rows = np.flatnonzero((run.columns.answer >= 0) & (run.columns.bucket == Bucket.OK))
    report.mixed_versions = int(np.sum(run.columns.reason[run.measured] == Reason.VERSION))
    order = np.lexsort((run.columns.version[rows], run.columns.entry[rows]))
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for path in run.answers]
        previous, expected, request = None, np.empty(0), {}
        for done, row in enumerate(rows[order].tolist()):
            if on_progress is not None and done % 256 == 0:
                on_progress(done, rows.size)
            entry = int(run.columns.entry[row])
            version = run.versions[run.columns.version[row]]
            if previous != (entry, version):
                previous, request = (entry, version), run.bank.document(entry)
                expected = _offline(oracle, version, request, report)
            if request["user_id"] in moving:
                report.unchecked += row >= run.first
                continue
            ids, scores = _read_answer(files[row % len(files)], int(run.columns.answer[row]))
            worst = worst_difference(request, expected, ids, scores)
            reason = Reason.NONE
            if not worst <= TOLERANCE:
                mixed = _is_mixed(oracle, request, ids, scores)
                reason = Reason.MIXED if mixed else Reason.SCORES
                run.columns.bucket[row], run.columns.reason[row] = Bucket.WRONG, reason
            if row >= run.first:
                report.checked += 1
                report.wrong_scores += reason is not Reason.NONE
                report.mixed_versions += reason is Reason.MIXED
                report.worst_error = max(report.worst_error, worst)
    return report


def _offline(oracle: Oracle, version: str, request: dict[str, Any], report: OracleReport) -> Scores:
    """An unknown version has no right answer: everything that names it is wrong."""
    try:
        return oracle.scores(version, request)
    except UnknownVersion:
        if version not in report.unknown_versions:
            report.unknown_versions.append(version)
        return np.full(len(request["candidates"]), np.inf)


def worst_difference(
    request: dict[str, Any], expected: Scores, ids: NDArray[np.int64], scores: Scores
) -> float:
    """The largest |score − offline|; infinite when one side knows an item and the other does not,
    or when ``top_k`` left out a better candidate than it returned."""
    candidates = np.array(request["candidates"], np.int64)
    if request.get("top_k") is None:
        wanted = expected
    else:
        place = np.argsort(candidates, kind="stable")
        found = place[np.searchsorted(candidates, ids, sorter=place)]
        wanted = expected[found]
        known = expected[~np.isnan(expected)]
        best = np.sort(known)[::-1][: request["top_k"]]
        if best.size != ids.size:
            return float("inf")
        if best.size and np.abs(np.sort(wanted)[::-1] - best).max() > TOLERANCE:
            return float("inf")
    if wanted.shape != scores.shape or (np.isnan(wanted) != np.isnan(scores)).any():
        return float("inf")
    apart = np.abs(wanted - scores)
    return float(np.nanmax(apart)) if (~np.isnan(apart)).any() else 0.0


def _is_mixed(
    oracle: Oracle, request: dict[str, Any], ids: NDArray[np.int64], scores: Scores
) -> bool:
    """Each score belongs to some version, but no single version explains them all."""
    if request.get("top_k") is not None:
        return False  # a different cut could have left out the evidence
    answers = np.stack([oracle.scores(version, request) for version in oracle.versions])
    same = np.abs(answers - scores) <= TOLERANCE
    same |= np.isnan(answers) & np.isnan(scores)
    return bool(same.any(axis=0).all() and not same.all(axis=1).any())


def _users_with_events(run: Run) -> set[int]:
    entries = np.flatnonzero(run.bank.kind == EVENT)
    return {run.bank.document(int(entry))["user_id"] for entry in entries}


def _read_answer(file: Any, offset: int) -> tuple[NDArray[np.int64], Scores]:
    file.seek(offset)
    count = int.from_bytes(file.read(8), "little")
    ids = np.frombuffer(file.read(8 * count), "<i8")
    return ids, np.frombuffer(file.read(8 * count), "<f8")


def versions_seen(run: Run) -> Iterator[tuple[str, int]]:
    """(version, answers) over the measured rows."""
    for number, name in enumerate(run.versions):
        yield name, int(np.sum(run.columns.version[run.measured] == number))
