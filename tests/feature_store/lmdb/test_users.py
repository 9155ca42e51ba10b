"""User records in LMDB: their database, one transaction for history and record, forgetting."""

from __future__ import annotations

from pathlib import Path

import pytest

from feature_store.contract import FOUND, MISSING, Append
from feature_store.errors import StoreCorrupt, StoreRefused
from feature_store.lmdb.environment import (
    DATABASES,
    NAMES,
    USERS,
    LmdbEnvironment,
    acquire,
    release,
)
from feature_store.lmdb.records import key_of
from tests.feature_store.samples import SHOP, ids
from tests.feature_store.stores import connect
from tests.feature_store.user_samples import SCHEMA, user_rows


def entries(path: Path) -> dict[str, int]:
    environment = acquire(path, create=False)
    counts = {
        name: environment.read(lambda txn, db=db: txn.stat(db)["entries"])  # type: ignore[misc]
        for name, db in environment.db.items()
    }
    release(environment)
    return counts


async def test_a_forgotten_user_leaves_nothing(tmp_path: Path) -> None:
    store = await connect(f"lmdb://{tmp_path}", SCHEMA, create=True, ids="mapped")
    before = entries(tmp_path)
    assert before.keys() == {*DATABASES, NAMES, USERS}
    await store.put_users(ids(7), user_rows(1), {7: "ada"})
    for key in "aba":
        await store.append_all([Append(7, [1], key, user_text="ada")])
    written = entries(tmp_path)
    assert (written["seen_keys"], written["seen_times"], written[USERS]) == (2, 2, 1)
    await store.append_all([Append(6, [1], "a"), Append(8, [1], "a")])  # its neighbours
    assert await store.forget_user(7)
    left = {name: count - before[name] for name, count in entries(tmp_path).items()}
    assert {name: count for name, count in left.items() if count} == {
        "histories": 2, "seen_keys": 2, "seen_times": 2,
    }  # fmt: skip
    await store.close()


async def test_history_and_record_are_one_transaction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await connect(f"lmdb://{tmp_path}", SCHEMA, create=True)
    await store.put_users(ids(7), user_rows(1))
    await store.append(7, [1])
    transactions = list[object]()
    read = LmdbEnvironment.read
    monkeypatch.setattr(
        LmdbEnvironment, "read", lambda self, look: (transactions.append(look), read(self, look))[1]
    )
    user = await store.user(7)
    assert (user.status, len(transactions)) == (FOUND, 1)
    assert user.history is not None
    await store.close()


async def test_a_damaged_history_costs_the_history_alone(tmp_path: Path) -> None:
    store = await connect(f"lmdb://{tmp_path}", SCHEMA, create=True)
    await store.put_users(ids(7), user_rows(1))
    environment = acquire(tmp_path, create=False)
    histories = environment.db["histories"]
    environment.write(lambda txn: txn.put(key_of(7), b"noise", db=histories))
    release(environment)
    user = await store.user(7)
    assert (user.status, user.row.tobytes()) == (FOUND, user_rows(1).tobytes())
    assert user.history is None
    assert isinstance(user.history_fault, StoreCorrupt)
    await store.close()


async def test_a_store_for_reading_alone_has_users(tmp_path: Path) -> None:
    url = f"lmdb://{tmp_path}"
    await (await connect(url, SHOP, create=True)).close()
    reader = await connect(url, read_only=True)
    assert (await reader.user(7)).status == MISSING
    await reader.close()
    store = await connect(url, SCHEMA, create=True)
    await store.put_users(ids(7), user_rows(1))
    await store.close()
    reader = await connect(url, read_only=True)
    assert (await reader.user(7)).row.tobytes() == user_rows(1).tobytes()
    assert [batch.ids.tolist() async for batch in reader.scan_users()] == [[7]]
    assert await reader.count_users() == 1
    with pytest.raises(StoreRefused):
        await reader.put_users(ids(8), user_rows(1))
    await reader.close()
