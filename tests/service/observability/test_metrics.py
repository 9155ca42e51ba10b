"""What Prometheus is given: well-formed, bounded, and of every process."""

from __future__ import annotations

import asyncio
import gc
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from service.api.admin import create_admin
from service.observability import multiprocess as shared_metrics
from service.observability.exporter import Worker, make_exporter
from service.observability.exposition import Writer, exposition
from service.observability.fast_metrics import Counter, Histogram
from service.observability.metrics import LATENCY, Metrics
from service.observability.multiprocess import MultiprocessExporter
from tests.service.in_process import client_of, opened
from tests.service.world import World

BUCKET = 'qin_request_duration_seconds_bucket{le="0.00075",outcome="ok",route="/v1/score"}'
FOLLOWED = 'qin_store_duration_seconds_count{operation="changes"}'
SCORED = 'qin_items_total{kind="scored"}'
OTHER_WORKER = """
import asyncio, sys
from pathlib import Path
from service.observability import multiprocess as shared_metrics
from service.api.admin import create_admin
from service.observability.metrics import Metrics
from service.observability.multiprocess import MultiprocessExporter

shared_metrics.WRITE_EVERY_S = 3600  # so that it writes when asked, or not at all

async def main():
    metrics = Metrics()
    async with MultiprocessExporter(metrics, Path(sys.argv[1]), 1):
        metrics.scored.inc(40)
        metrics.canary_share.set(0.5)
        print("counted", flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """As a service makes one: a short path, because a socket's address is."""
    with tempfile.TemporaryDirectory(prefix="qin-") as name:
        yield Path(name)


def samples(content: bytes) -> dict[str, float]:
    """Line without its number -> the number."""
    lines = (line for line in content.decode().splitlines() if not line.startswith("#"))
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


def used(metrics: Metrics) -> Metrics:
    metrics.requests.labels("/v1/score", 200).inc(3)
    metrics.request_seconds.labels("/v1/score", "ok").observe(0.0007)
    metrics.model.info({"version": 'odd "version" \\ of\nmine'})
    metrics.shadow_delta.observe(1e-7)
    return metrics


def test_the_text_is_the_librarys_own() -> None:
    registry = used(Metrics()).registry
    fixed = CollectorRegistry()  # what changes by itself is left out
    for collector in registry._collector_to_names:
        if getattr(collector, "_labelnames", None) is not None:
            fixed.register(collector)
    assert exposition(map(Writer(Metrics()).family, fixed.collect())) == generate_latest(fixed)


async def test_names_and_units_are_as_prometheus_wants_them(world: World) -> None:
    async with opened(world) as state:
        families = list(state.metrics.registry.collect())
    for family in families:
        assert family.documentation
        if family.name.startswith("qin_") and family.type == "histogram":
            unit = family.name.rsplit("_", 1)[1]
            assert unit in {"seconds", "candidates", "delta", "tau"}, family.name
    latency = {s.labels["le"] for s in used(Metrics()).request_seconds.collect()[0].samples[:-2]}
    assert len([le for le in latency if float(le) < 1e-3]) >= 5


async def test_nothing_that_a_client_sends_adds_a_series(world: World) -> None:
    pick = random.Random(1)
    async with opened(world) as state, client_of(state) as client:
        await ask_anything(client, pick, 40)
        async with asyncio.timeout(30):  # the service's own series come when it first asks
            while FOLLOWED not in samples(await state.exporter.render()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        before = samples(await state.exporter.render()).keys()
        await ask_anything(client, pick, 400)
        assert samples(await state.exporter.render()).keys() == before


async def ask_anything(client: httpx.AsyncClient, pick: random.Random, times: int) -> None:
    """Each kind of request in turn, with paths, users and versions never seen before."""
    for _ in range(times):
        number = pick.getrandbits(62)
        score = {"user_id": number, "candidates": [number]}
        assert (await client.get(f"/{number:x}/{pick.random()}")).status_code == 404
        assert (await client.get(f"/v1/items/{number}")).status_code == 404
        assert (await client.post("/v1/score", json=score)).status_code == 200
        named = {**score, "model_version": f"v{number}"}
        assert (await client.post("/v1/score", json=named)).status_code == 404


async def test_a_scrape_adds_up_all_workers_as_they_are_now(folder: Path) -> None:
    one, two = used(Metrics()), used(Metrics())
    async with (
        make_exporter(one, Worker(0, folder)) as first,
        make_exporter(two, Worker(1, folder)),
    ):
        assert isinstance(first, MultiprocessExporter)
        two.scored.inc(7)
        one.scored.inc(1)
        one.canary_share.set(0.25)
        two.ready.set(1)
        found = samples(await first.render())
    assert found[SCORED] == 8
    assert found[BUCKET] == 2
    assert found["qin_canary_share"] == 0.25  # the largest, not a sum
    assert found["qin_ready"] == 0  # not all of them are
    assert found["process_open_fds"] > 0


async def test_the_counters_of_a_killed_worker_stay_and_its_successor_goes_on_from_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Metrics()
    async with MultiprocessExporter(ours, folder, 0) as shared:
        ours.scored.inc(2)
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OTHER_WORKER, str(folder), stdout=subprocess.PIPE
        )
        try:
            assert other.stdout is not None
            assert await other.stdout.readline() == b"counted\n"
            alive = samples(await shared.render())
        finally:
            other.kill()
            await other.wait()
        assert (alive[SCORED], alive["qin_canary_share"]) == (42, 0.5)
        monkeypatch.setattr(shared_metrics, "ABSENT_AFTER_S", 1e-3)
        await asyncio.sleep(0.01)
        dead = samples(await shared.render())
        assert dead[SCORED] == 42
        monkeypatch.setattr(shared_metrics, "ABSENT_AFTER_S", 60.0)
        successor = Metrics()
        async with MultiprocessExporter(successor, folder, 1):
            successor.scored.inc(1)
            again = samples(await shared.render())
        assert (again[SCORED], again["qin_canary_share"]) == (43, 0)


async def test_the_gauges_of_a_worker_that_left_are_gone(folder: Path) -> None:
    one, two = Metrics(), Metrics()
    async with MultiprocessExporter(one, folder, 0) as shared:
        async with MultiprocessExporter(two, folder, 1):
            two.canary_share.set(0.5)
            two.scored.inc(5)
        found = samples(await shared.render())
    assert (found["qin_canary_share"], found[SCORED]) == (0, 5)


async def test_collections_are_counted_and_the_loop_is_watched(world: World) -> None:
    async with opened(world) as state:
        before = samples(await state.exporter.render())
        gc.collect()
        for _ in range(1000):
            after = samples(await state.exporter.render())
            if after["qin_event_loop_lag_seconds_count"] > 0:
                break
            await asyncio.sleep(0.02)
        assert after["qin_event_loop_lag_seconds_count"] > 0
        full = 'qin_gc_pause_seconds_count{generation="2"}'
        assert after[full] > before[full]
        assert after['qin_gc_pause_seconds_sum{generation="2"}'] > 0
    assert not any(getattr(c, "__self__", None) is state.metrics.gc_pauses for c in gc.callbacks)


async def test_what_was_loaded_is_no_longer_looked_at_by_collections(world: World) -> None:
    async with opened(world) as state:
        version = state.registry.active
        assert version is not None
        assert not any(thing is version for thing in gc.get_objects())
        assert gc.is_tracked(version)


@pytest.mark.parametrize("on", ["service", "admin"])
@pytest.mark.parametrize(
    "path",
    ["/metrics", "/v2/models/stats", "/v2/models/qin/stats", "/v2/models/qin/versions/{}/stats"],
)
async def test_metrics_and_statistics_are_at_the_port_that_was_asked_for(
    world: World, on: str, path: str
) -> None:
    async with opened(world, metrics_on=on) as state, client_of(state) as client:
        admin = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=create_admin(state)), base_url="http://admin"
        )
        async with admin:
            path = path.format(world.bundle.version)
            found = {"service": await client.get(path), "admin": await admin.get(path)}
    assert found[on].status_code == 200
    kind = "text/plain; version=0.0.4" if path == "/metrics" else "application/json"
    assert found[on].headers["Content-Type"].startswith(kind)
    assert {name for name, answer in found.items() if answer.status_code == 404} == {
        "service",
        "admin",
    } - {on}


@given(st.lists(st.floats(-1, 20) | st.sampled_from(LATENCY), max_size=30))
def test_a_histogram_counts_as_the_librarys(amounts: list[float]) -> None:
    ours, theirs = (
        kind("seconds", "Time.", buckets=LATENCY, registry=None)
        for kind in (Histogram, prometheus_client.Histogram)
    )
    for amount in amounts:
        ours.observe(amount)
        theirs.observe(amount)
    assert list(ours.collect()) == list(theirs.collect())


@given(st.lists(st.floats(0, 1e9) | st.integers(0, 2**40)))
def test_a_counter_counts_as_the_librarys(amounts: list[float]) -> None:
    ours, theirs = (
        kind("things", "Things.", ["kind"], registry=None)
        for kind in (Counter, prometheus_client.Counter)
    )
    for one in (ours, theirs):
        for amount in amounts:
            one.labels("rare").inc(amount)
        one.labels("usual").inc()
        with pytest.raises(ValueError, match="label"):
            one.inc()
        with pytest.raises(ValueError, match="non-negative"):
            one.labels("usual").inc(-1)
    assert list(ours.collect()) == list(theirs.collect())
