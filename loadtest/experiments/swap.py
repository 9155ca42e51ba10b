"""Activates models under load and judges errors, mixed versions, scores and latency."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson

from loadtest.analysis.statistics import percentile, percentiles
from loadtest.experiments.process import ProcessGone, resident_mib
from loadtest.generator.columns import Bucket
from loadtest.generator.poller import clock
from loadtest.generator.runner import Run, RunError
from loadtest.oracle.comparison import OracleReport
from loadtest.target import Target

AROUND = 0.5  # seconds before an activation's request and after its response
Json = dict[str, Any]


def first_token(setting: str) -> str:
    """Parse the first token of QIN_ADMIN_TOKEN: TOKEN, or NAME:TOKEN separated by spaces."""
    return (setting.split() or [""])[0].rpartition(":")[2]


@dataclass(frozen=True)
class Admin:
    """Client of the service's admin API."""

    url: str
    token: str = ""  # as in QIN_ADMIN_TOKEN
    allow_remote: bool = False
    timeout: float = 60.0

    def versions(self) -> list[str]:
        """List versions, the active one first. RunError for an error response."""
        listed = self._call("GET", "/admin/models")
        names = [model["version"] for model in listed["models"]]
        return sorted(names, key=lambda name: name != listed.get("active"))

    def activate(self, version: str) -> None:
        self._post(version, "activate")

    def reload(self, version: str) -> float | None:
        """Unload and load a model; return the longest stall of the event loop, ms, if reported."""
        self._post(version, "unload")
        stall: float | None = self._post(version, "load").get("worst_stall_ms")
        return stall

    def _post(self, version: str, verb: str) -> Any:
        return self._call("POST", f"/admin/models/{quote(version, safe='')}/{verb}")

    def _call(self, method: str, path: str) -> Any:
        target = Target.parse(self.url, allow_remote=self.allow_remote)
        token = first_token(self.token)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            status, body = target.call(method, path, headers, self.timeout)
        except OSError as error:
            raise RunError(f"admin: {self.url} does not answer: {error}") from None
        if not 200 <= status < 300:
            raise RunError(f"admin: {method} {path}: {status} {body[:300]!r}")
        return orjson.loads(body) if body else {}


@dataclass
class Swapper:
    """Activates versions in turn, ``count`` times evenly from ``begin`` to ``end`` (seconds of the
    run); the ``background`` of ``execute``. ``fresh``: each is unloaded and loaded before.
    """

    admin: Admin
    versions: list[str]
    count: int
    begin: float
    end: float
    pid: int | None = None
    fresh: bool = False
    swaps: list[Json] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __call__(self, start: float, over: threading.Event) -> None:
        times = np.linspace(self.begin, self.end, self.count, endpoint=False)
        for number, at in enumerate(times.tolist()):
            if over.wait(max(0.0, start + at - clock())):
                return
            version = self.versions[(number + 1) % len(self.versions)]
            began = asked = clock() - start
            stall = None
            try:
                if self.fresh:
                    stall = self.admin.reload(version)
                    asked = clock() - start
                self.admin.activate(version)
            except RunError as error:
                self.failures.append(str(error))
                continue
            swap: Json = {
                "version": version,
                "began_s": began,
                "asked_s": asked,
                "answered_s": clock() - start,
                "load_stall_ms": stall,
            }
            if self.pid is not None:
                try:
                    swap["resident_mib"] = resident_mib(self.pid)
                except ProcessGone as error:
                    self.failures.append(str(error))
                    return
            self.swaps.append(swap)


def judge(run: Run, swapper: Swapper, oracle: OracleReport | None) -> Json:
    """Compute errors, wrong and mixed answers, latency and memory. ``errors``: requests not OK for
    other reasons than their scores, and failed activations. p99 around swaps covers requests
    scheduled from ``AROUND`` before a load or activation is requested to ``AROUND`` after its
    response; p99 without, all others."""
    rows = run.measured
    bucket, at, response = run.columns.bucket[rows], run.columns.at[rows], run.response()
    around = np.zeros(at.size, bool)
    for swap in swapper.swaps:
        first, last = swap["began_s"] - AROUND, swap["answered_s"] + AROUND
        around[slice(*np.searchsorted(at, [first, last]))] = True
        swap["first_answer_ms"], swap["first_response_ms"] = _first_answer(run, swap)
    good = bucket == Bucket.OK
    with_swaps, without = response[around & good], response[~around & good]
    waited = [swap["first_answer_ms"] for swap in swapper.swaps]
    first_answers = [time for time in waited if time is not None]
    responses = [swap["first_response_ms"] for swap in swapper.swaps]
    loads = [1e3 * (swap["asked_s"] - swap["began_s"]) for swap in swapper.swaps if swapper.fresh]
    stalls = [s["load_stall_ms"] for s in swapper.swaps if s["load_stall_ms"] is not None]
    memory = [swap["resident_mib"] for swap in swapper.swaps if "resident_mib" in swap]
    tail, usual = percentile(with_swaps, 0.99), percentile(without, 0.99)
    return {
        "swaps": len(swapper.swaps),
        "errors": int(np.sum(~np.isin(bucket, (Bucket.OK, Bucket.WRONG)))) + len(swapper.failures),
        "refused_activations": swapper.failures,
        "mixed_versions": oracle.mixed_versions if oracle else None,
        "wrong_scores": oracle.wrong_scores if oracle else None,
        "wrong_features": oracle.wrong_features if oracle else None,
        "checked": oracle.checked if oracle else 0,
        "p99_around_swaps_ms": 1e3 * tail,
        "p99_without_ms": 1e3 * usual,
        "p99_ratio": tail / usual,
        "requests_around": int(around.sum()),
        "requests_without": int((~around).sum()),
        "around_ms": percentiles(with_swaps),
        "without_ms": percentiles(without),
        "resident_mib_after_5": memory[4] if len(memory) > 4 else None,
        "resident_mib_after_all": memory[-1] if memory else None,
        "memory_ratio": memory[-1] / memory[4] if len(memory) > 4 else None,
        "load_ms": _spread(loads),
        "load_stall_ms": _spread(stalls),
        "activation_ms": _spread([1e3 * (s["answered_s"] - s["asked_s"]) for s in swapper.swaps]),
        "activation_to_first_answer_ms": _spread(first_answers),
        "first_response_ms": _spread([time for time in responses if time is not None]),
        "each": swapper.swaps,
    }


def _first_answer(run: Run, swap: Json) -> tuple[float, float] | tuple[None, None]:
    """Return milliseconds from the activation request to the new version's first answer, and from
    that answer's schedule: at few requests a second the first is mostly the wait for a request.
    None without an answer."""
    columns, name = run.columns, swap["version"]
    number = run.versions.index(name) if name in run.versions else -2
    later = np.flatnonzero((columns.version == number) & (columns.done >= swap["asked_s"]))
    if not later.size:
        return None, None
    first = later[columns.done[later].argmin()]
    done = float(columns.done[first])
    return 1e3 * (done - swap["asked_s"]), 1e3 * (done - float(columns.at[first]))


def _spread(values: list[float]) -> Json | None:
    if not values:
        return None
    return {
        "p50": float(np.median(values)),
        "p99": percentile(np.array(values), 0.99),
        "max": max(values),
    }
