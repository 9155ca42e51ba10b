"""The ring of the last hour's seconds, and quantiles of what was counted in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.observability.metrics import LATENCY, Metrics
from service.observability.recent_traffic import (
    BUCKET,
    COLUMNS,
    GAUGES,
    HOUR_S,
    PLACE,
    ROWS,
    RecentTraffic,
    Ring,
    Totals,
    quantiles,
)

SECOND = 1_800_000_000


def row(value: float) -> np.ndarray:
    return np.full(len(COLUMNS), value, np.float32)


@pytest.mark.parametrize("in_file", [False, True])
def test_the_last_hour_is_kept_and_seconds_without_a_row_are_none(
    in_file: bool, tmp_path: Path
) -> None:
    ring = Ring(tmp_path / "0.recent" if in_file else None)
    for second in range(SECOND, SECOND + 2 * ROWS):
        if second % 7:
            ring.write(second, row(second - SECOND))
    last = SECOND + 2 * ROWS - 1
    rows, there = ring.read(last, HOUR_S)
    wanted = np.arange(last - HOUR_S + 1, last + 1)
    assert there.tolist() == (wanted % 7 != 0).tolist()
    assert rows[there][:, 0].tolist() == (wanted[there] - SECOND).tolist()
    assert not rows[~there].any()


def test_a_process_reads_another_ones_ring_and_a_successor_continues_it(tmp_path: Path) -> None:
    file = tmp_path / "1.recent"
    Ring(file).write(SECOND, row(3))
    reader = Ring(file, writes=False)
    Ring(file).write(SECOND + 1, row(4))  # the successor
    assert reader.read(SECOND + 1, 2)[0][:, 0].tolist() == [3, 4]


def test_a_file_of_another_size_is_made_again(tmp_path: Path) -> None:
    file = tmp_path / "0.recent"
    file.write_bytes(b"of another release")
    ring = Ring(file)
    assert not ring.read(SECOND, HOUR_S)[1].any()


def recent(metrics: Metrics, roles: dict[str, str | None], busy: list[float]) -> RecentTraffic:
    gauges = [float(place) for place in range(len(GAUGES))]
    totals = Totals(metrics, frozenset({"/v1/score"}))
    kept = RecentTraffic(totals, lambda: busy[0], lambda: gauges, lambda: dict(roles))
    kept._written = SECOND - 1
    return kept


def test_a_row_has_what_was_counted_in_its_second() -> None:
    metrics, busy = Metrics(), [5.0]
    metrics.requests.labels("/v1/score", 200).inc(99)  # before
    kept = recent(metrics, {}, busy)
    for status, count in ((200, 7), (429, 2), (422, 3), (503, 1)):
        metrics.requests.labels("/v1/score", status).inc(count)
    metrics.requests.labels("/metrics", 200).inc(4)
    metrics.problems.labels("over-capacity").inc(2)
    metrics.problems.labels("of-no-list").inc()
    metrics.request_seconds.labels("/v1/score", "ok").observe(0.004)
    metrics.request_seconds.labels("/v1/score", "refused").observe(0.004)
    metrics.request_seconds.labels("/metrics", "ok").observe(0.004)
    busy[0] += 0.25
    kept.write(SECOND)
    kept.write(SECOND + 1)
    (first, second), _ = kept.ring.read(SECOND + 1, 2)
    shown = {name: float(first[place]) for name, place in PLACE.items() if first[place]}
    counts = {"answered": 7, "refused": 2, "invalid": 3, "failed": 1, "elsewhere": 4}
    gauges = {name: float(place) for place, name in enumerate(GAUGES) if place}
    bucket = f"le_{int(np.searchsorted(LATENCY, 0.004))}"
    rest = {bucket: 1, "over-capacity": 2, "other": 1, "busy": 0.25}
    assert shown == {**counts, **rest, **gauges}
    assert not second[: PLACE[GAUGES[0]]].any()


def test_what_was_counted_while_seconds_were_missed_is_spread_over_them() -> None:
    metrics = Metrics()
    kept = recent(metrics, {}, [0.0])
    metrics.requests.labels("/v1/score", 200).inc(8)
    kept.write(SECOND + 3)
    metrics.requests.labels("/v1/score", 200).inc(5)
    kept.write(SECOND + 3)  # the timer was early: not twice
    kept.write(SECOND + 2)  # the clock was set back
    kept.write(SECOND + 4)
    answered = kept.ring.read(SECOND + 4, 6)[0][:, PLACE["answered"]]
    assert answered.tolist() == [0, 2, 2, 2, 2, 5]


def test_a_long_silence_stays_a_gap() -> None:
    kept = recent(Metrics(), {}, [0.0])
    kept.write(SECOND + 1000)
    assert kept.ring.read(SECOND + 1000, 1001)[1].sum() == 1


def test_a_change_of_roles_is_marked_and_no_more_than_a_change() -> None:
    roles: dict[str, str | None] = {"active": "a", "canary": None}
    kept = recent(Metrics(), roles, [0.0])
    kept.write(SECOND)
    roles["canary"] = "b 10%"
    kept.write(SECOND + 1)
    kept.write(SECOND + 2)
    roles |= {"active": "b", "canary": None}
    kept.write(SECOND + 3)
    marks = [(event.what, event.text) for event in kept.marks.marks]
    assert marks == [("canary", "b 10%"), ("active", "b"), ("canary", "none")]


def test_the_called_are_told_the_second_that_is_whole() -> None:
    kept, told = recent(Metrics(), {}, [0.0]), list[int]()
    kept.on_second.append(told.append)
    kept.write(SECOND)
    assert told == [kept.last]


@given(
    st.lists(st.floats(1e-6, 30), min_size=1, max_size=200),
    st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]),
)
def test_a_quantile_is_in_the_bucket_of_the_true_one(seconds: list[float], q: float) -> None:
    counts = np.zeros(len(LATENCY) + 1)
    for one in seconds:
        counts[np.searchsorted(LATENCY, one)] += 1
    true = float(np.sort(seconds)[int(np.ceil(q * len(seconds))) - 1])
    place = int(np.searchsorted(LATENCY, true))
    low = LATENCY[place - 1] if place else 0.0
    high = LATENCY[place] if place < len(LATENCY) else LATENCY[-1]
    (found,) = quantiles(q, counts[None])
    assert min(low, high) - 1e-9 <= found <= high + 1e-9


def test_quantiles_are_those_of_prometheus() -> None:
    counts = np.zeros((3, len(LATENCY) + 1))
    counts[0, 4] = 10  # 350 to 500 µs
    counts[1, -1] = 1  # beyond the last bound
    found = quantiles(0.5, counts)
    assert found[0] == pytest.approx(425e-6)
    assert found[1] == LATENCY[-1]
    assert np.isnan(found[2])


def test_the_buckets_are_the_histograms_own() -> None:
    assert BUCKET.stop - BUCKET.start == len(LATENCY) + 1
