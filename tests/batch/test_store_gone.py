"""A store that fails, or loses its data, during a run: no user is scored as if new."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from batch.errors import StoreGone
from batch.inputs.requests import Requests
from batch.job import Cut
from batch.scoring.scorer import Scorer
from batch.scoring.scores import DEGRADED, KNOWN_USER
from tests.feature_store.redis_servers import Server, standalone
from tests.service.world import World, load

USERS = range(1, 9)
PATIENCE_S = 1.0


@pytest.fixture
def server(world: World, tmp_path: Path) -> Iterator[Server]:
    with standalone(tmp_path) as server:
        asyncio.run(load(url_of(server), world.schema, world.ids, world.rows, world.users))
        yield server


@pytest.fixture
def scorer(world: World, server: Server) -> Iterator[Scorer]:
    scorer = Scorer(world.bundle.path, url_of(server), Cut(), patience_s=PATIENCE_S)
    yield scorer
    scorer.close()


def url_of(server: Server) -> str:
    return f"redis://127.0.0.1:{server.port}"


def requests(world: World) -> Requests:
    """Three candidates of each user."""
    items = np.tile(world.ids[:3], len(USERS))
    return Requests(np.array(USERS), np.arange(0, len(items) + 1, 3), items)


def test_a_store_that_refuses_is_waited_for_then_ends_the_run(
    world: World, server: Server, scorer: Scorer
) -> None:
    assert (scorer.score(requests(world)).users == KNOWN_USER).all()
    server.cli("config", "set", "requirepass", "other")
    server.cli("-a", "other", "client", "kill", "type", "normal")
    with pytest.raises(StoreGone, match=r"did not answer for 1 s: .*password"):
        scorer.score(requests(world))
    server.cli("-a", "other", "config", "set", "requirepass", "")
    assert (scorer.score(requests(world)).users == KNOWN_USER).all()


def test_a_store_that_lost_its_data_ends_the_run(
    world: World, server: Server, scorer: Scorer
) -> None:
    server.cli("flushall")
    with pytest.raises(StoreGone, match="emptied or replaced during the run"):
        scorer.score(requests(world))


def test_a_store_that_was_emptied_and_loaded_again_ends_the_run(
    world: World, server: Server, scorer: Scorer
) -> None:
    assert (scorer.score(requests(world)).users == KNOWN_USER).all()
    server.cli("flushall")
    asyncio.run(load(url_of(server), world.schema, world.ids, world.rows, world.users))
    with pytest.raises(StoreGone, match="it was loaded again"):
        scorer.score(requests(world))


def test_a_server_that_restarted_without_a_part_ends_the_run(
    world: World, server: Server, scorer: Scorer
) -> None:
    """As where one node of a cluster restarts without its data."""
    assert (scorer.score(requests(world)).users == KNOWN_USER).all()
    server.cli("del", *(f"qin:ids:{{{partition}}}" for partition in range(20)))
    server.cli("save")
    server.kill()
    server.start()
    with pytest.raises(StoreGone, match=r"a server changed: it has \d+ items, had 400"):
        scorer.score(requests(world))


def test_items_that_are_deleted_during_a_run_do_not_end_it(
    world: World, server: Server, scorer: Scorer
) -> None:
    assert (scorer.score(requests(world)).users == KNOWN_USER).all()
    server.cli("del", *(f"qin:ids:{{{partition}}}" for partition in range(20)))
    assert (scorer.score(requests(world)).users == KNOWN_USER).all()


def test_a_server_that_restarted_with_all_does_not_end_the_run(
    world: World, server: Server, scorer: Scorer
) -> None:
    assert (scorer.score(requests(world)).users == KNOWN_USER).all()
    server.cli("save")
    server.kill()
    server.start()
    assert (scorer.score(requests(world)).users == KNOWN_USER).all()


def test_a_folder_that_was_replaced_ends_the_run(world: World, tmp_path: Path) -> None:
    first, second = tmp_path / "store", tmp_path / "second"
    for folder in (first, second):
        asyncio.run(load(f"lmdb://{folder}", world.schema, world.ids, world.rows, world.users))
    scorer = Scorer(world.bundle.path, f"lmdb://{first}", Cut())
    assert (scorer.score(requests(world)).users == KNOWN_USER).all()
    first.rename(tmp_path / "before")
    second.rename(first)
    with pytest.raises(StoreGone, match="emptied or replaced during the run"):
        scorer.score(requests(world))
    scorer.close()


def test_a_history_of_another_type_costs_its_user_alone(
    world: World, server: Server, scorer: Scorer
) -> None:
    server.cli("set", "qin:h:{1}", "of another program")
    users = scorer.score(requests(world)).users
    assert users[0] == DEGRADED
    assert (users[1:] == KNOWN_USER).all()
