"""A load or an export whose Redis loses data does not end as if all of it were there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from feature_store.cli.losses import Losses
from feature_store.errors import StoreRefused
from feature_store.parquet.export import StoreExport
from feature_store.parquet.histories import HistoryParquetBatch
from feature_store.parquet.load import LoadJob
from feature_store.redis import durability
from tests.feature_store.parquet.test_load import run
from tests.feature_store.parquet_samples import write
from tests.feature_store.redis.conftest import MANY
from tests.feature_store.redis_servers import Server, standalone
from tests.feature_store.samples import SHOP
from tests.feature_store.stores import connect


def url_of(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}"


@pytest.mark.parametrize(
    ("policy", "code", "told"),
    [
        ("allkeys-lru", 1, "its data may not all be there"),
        ("volatile-lru", 0, "warning: redis evicted"),
    ],
)
def test_keys_that_redis_evicts_during_a_load_are_said(
    tmp_path: Path, arguments: list[Any], policy: str, code: int, told: str
) -> None:
    with standalone(tmp_path / "redis") as server:
        assert run("load", url_of(server), *arguments).exit_code == 0
        used = int(server.client().info("memory")["used_memory"])
        server.cli("config", "set", "maxmemory-policy", policy)
        server.cli("config", "set", "maxmemory", str(used + 50_000))
        server.cli("config", "set", "maxmemory-samples", "10")
        more = [str(word).replace("valid", "more") for word in arguments]
        users = list(range(MANY, 2 * MANY))
        write(tmp_path / "more.parquet", {"user_id": users, "item_seq": [[1, 2, 3]] * MANY})
        loaded = run("load", url_of(server), *more)
        assert (loaded.exit_code, told in loaded.stderr) == (code, True), loaded.stderr


def restarted(server: Server) -> None:
    time.sleep(2)  # what a server tells of its age is in whole seconds
    server.kill()
    server.start()


def emptied(server: Server) -> None:
    server.cli("flushall")


@pytest.mark.parametrize(
    ("lose", "told"),
    [
        (restarted, "redis restarted during the load"),
        (emptied, "emptied during the load"),
    ],
)
def test_a_redis_that_loses_its_data_fails_the_load(
    tmp_path: Path,
    arguments: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    lose: Callable[[Server], None],
    told: str,
) -> None:
    with standalone(tmp_path / "redis") as server:
        put = LoadJob._put

        async def after_a_loss(self: LoadJob, batch: Any, report: Any) -> None:
            if isinstance(batch, HistoryParquetBatch):
                lose(server)
            await put(self, batch, report)

        monkeypatch.setattr(LoadJob, "_put", after_a_loss)
        loaded = run("load", url_of(server), *arguments)
        assert loaded.exit_code == 1
        assert told in loaded.stderr


@pytest.mark.parametrize("loaded_again", [False, True])
def test_a_redis_that_is_emptied_fails_an_export(
    tmp_path: Path, arguments: list[Any], monkeypatch: pytest.MonkeyPatch, loaded_again: bool
) -> None:
    with standalone(tmp_path / "redis") as server:
        assert run("load", url_of(server), *arguments).exit_code == 0
        histories = StoreExport.histories

        async def emptied(self: StoreExport, path: Path) -> Any:
            async for none in histories(self, path):
                yield none
            server.cli("flushall")
            if loaded_again:
                await asyncio.to_thread(run, "load", url_of(server), *arguments)

        monkeypatch.setattr(StoreExport, "histories", emptied)
        told = run("export", url_of(server), tmp_path / "export", "--id-column", "number")
        assert told.exit_code == 1
        assert "emptied during the export" in told.stderr
        assert ("loaded by another command" in told.stderr) is loaded_again


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let INFO lack a line, as that of a proxy may."""
    info_of = durability.info_of
    monkeypatch.setattr(
        durability, "info_of", lambda reply: {k: v for k, v in info_of(reply).items() if k != name}
    )


async def test_a_redis_whose_clock_was_set_back_has_not_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It seems to be younger than the command; without a run id its age alone tells."""
    with standalone(tmp_path / "redis") as server:
        store = await connect(url_of(server), SHOP, create=True)
        losses = await Losses.watched(store, "load")
        losses._began -= 3600
        assert await losses.found(url_of(server), store) == []
        without(monkeypatch, "run_id")
        with pytest.raises(StoreRefused, match="restarted"):
            await losses.found(url_of(server), store)
        without(monkeypatch, "uptime_in_seconds")
        assert await losses.found(url_of(server), store) == []
        await store.close()
