"""A load or an export during which other servers, or other runs of them, took over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.crc import key_slot

from feature_store.contract import FOUND
from feature_store.errors import StoreUnavailable
from feature_store.parquet.export import StoreExport
from feature_store.parquet.histories import HistoryParquetBatch
from feature_store.parquet.load import LoadJob
from tests.feature_store.parquet.test_load import run
from tests.feature_store.redis.conftest import MANY
from tests.feature_store.redis.test_losses import url_of
from tests.feature_store.redis_moves import migrating
from tests.feature_store.redis_servers import (
    PATIENT_MS,
    SERVICE,
    ClusterGroup,
    SentinelGroup,
    Server,
    cluster_group,
    cluster_whole,
    sentinel_group,
    standalone,
    until,
)
from tests.feature_store.samples import SHOP
from tests.feature_store.stores import connect


@pytest.fixture
def own_sentinels(tmp_path: Path) -> Iterator[SentinelGroup]:
    with sentinel_group(tmp_path / "redis") as group:
        group.notice_within(PATIENT_MS)
        yield group


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[ClusterGroup]:
    with cluster_group(tmp_path / "redis") as group:
        group.notice_within(PATIENT_MS)
        yield group


def fail_over(group: SentinelGroup, to: Server) -> None:
    """To the replica, as an operator asks for it."""
    sentinel = group.sentinels[0].client()
    sentinel.execute_command("SENTINEL", "FAILOVER", SERVICE)
    until(lambda: sentinel.sentinel_master(SERVICE)["port"] == to.port, "failover")


def during_the_histories(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Let servers change while an export reads the histories."""
    histories = StoreExport.histories

    async def changed(self: StoreExport, path: Path) -> Any:
        async for none in histories(self, path):
            yield none
        await asyncio.to_thread(change)

    monkeypatch.setattr(StoreExport, "histories", changed)


def test_a_replica_that_takes_over_fails_a_load(
    own_sentinels: SentinelGroup, arguments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    put = LoadJob._put

    async def taken_over(self: LoadJob, batch: Any, report: Any) -> None:
        await put(self, batch, report)
        if isinstance(batch, HistoryParquetBatch):
            await asyncio.to_thread(fail_over, own_sentinels, own_sentinels.replica)

    monkeypatch.setattr(LoadJob, "_put", taken_over)
    loaded = run("load", own_sentinels.url, *arguments)
    assert loaded.exit_code == 1
    assert "another server took over during the load" in loaded.stderr


def test_a_replica_that_takes_over_fails_an_export(
    own_sentinels: SentinelGroup,
    arguments: list[Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("load", own_sentinels.url, *arguments).exit_code == 0
    during_the_histories(monkeypatch, partial(fail_over, own_sentinels, own_sentinels.replica))
    told = run("export", own_sentinels.url, tmp_path / "export", "--id-column", "number")
    assert told.exit_code == 1
    assert "another server took over during the export" in told.stderr


def test_a_restart_fails_an_export_though_all_was_on_disk(
    arguments: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable = ["--appendonly", "yes", "--appendfsync", "always"]
    with standalone(tmp_path / "redis", options=durable) as server:
        assert run("load", url_of(server), *arguments).exit_code == 0

        def restart() -> None:
            time.sleep(2)  # what a server tells of its age is in whole seconds
            server.kill()
            server.start()

        during_the_histories(monkeypatch, restart)
        told = run("export", url_of(server), tmp_path / "export", "--id-column", "number")
        assert told.exit_code == 1
        assert "redis restarted during the export: it may lack records" in told.stderr


def test_slots_that_move_fail_an_export(
    own_cluster: ClusterGroup, arguments: list[Any], tmp_path: Path, monkeypatch: Any
) -> None:
    assert run("load", own_cluster.url, *arguments).exit_code == 0
    *_, finish = migrating(own_cluster, 0)
    during_the_histories(monkeypatch, finish)
    told = run("export", own_cluster.url, tmp_path / "export", "--id-column", "number")
    assert told.exit_code == 1
    assert "slots moved during the export" in told.stderr


def test_a_load_that_was_stopped_begins_anew_where_a_node_of_a_cluster_has_restarted(
    own_cluster: ClusterGroup, arguments: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """How far it was is noted on one node, and what another one lost is not known there."""
    url, put = own_cluster.url, LoadJob._put
    noted = [own_cluster.master_of(key_slot(key)) for key in (b"qin:meta", b"qin:note:load")]

    async def stopped(self: LoadJob, batch: Any, report: Any) -> None:
        if isinstance(batch, HistoryParquetBatch):
            raise StoreUnavailable("stopped by the test")
        await put(self, batch, report)

    with monkeypatch.context() as patched:
        patched.setattr(LoadJob, "_put", stopped)
        assert run("load", url, *arguments).exit_code == 1
    node = next(each for each in own_cluster.servers[:3] if each not in noted)
    node.kill()
    node.start()
    for each in own_cluster.servers:
        until(lambda s=each: cluster_whole(s), "the cluster")  # type: ignore[misc]
    assert node.client().dbsize() == 0
    loaded = run("load", url, *arguments)
    assert loaded.exit_code == 0, loaded.stderr

    async def look() -> None:
        store = await connect(url, SHOP)
        numbers = np.arange(1, MANY + 1)
        assert ((await store.items(numbers)).status == FOUND).all()
        await store.close()

    asyncio.run(look())
