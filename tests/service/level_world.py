"""The authors' level variant, from their state_dict to bundle and store, and requests of it.

Users, histories, items and contexts are of every kind: known, cold, without a record, without
features. ``answers`` are the network's own, in float64 from the tensors of the file.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

import feature_store.__main__
import model_export.__main__
from feature_store import connect
from feature_store.contract import Ids, ItemRows
from feature_store.options import StoreOptions
from feature_store.schema import FeatureSchema
from model_export.quality.random_network import random_network
from tests.model_export.measure_levels import Sizes, their_state
from tests.model_export.published_forward import LEVELS, PublishedForward
from training.qin import QINSizes

ITEMS, USERS, MOST_CANDIDATES = 1500, 300, 8
ABSENT_ITEM = 2**62  # and above: ids that the store does not have
ABSENT_USER = 2**62
USER_KINDS = ("known", "last index", "no record", "index 0", "beyond the vocabulary", "negative")
HISTORY_KINDS = ("stored", "none", "given", "given empty", "given with unknown items")
CONTEXT_KINDS = ("own levels", "likes given", "views given", "both levels given")


@dataclass(frozen=True)
class Case:
    """One request and what it means."""

    user: int
    index: int  # of the user in the table: 0 if unknown
    history: Ids  # (H,) newest first; those of the store if they are not given
    is_given: bool
    candidates: Ids  # (C,)
    context: dict[str, NDArray[np.int32]]
    kinds: tuple[str, str, str]

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {"user_id": self.user, "candidates": self.candidates.tolist()}
        if self.context:
            body["context"] = {name: values.tolist() for name, values in self.context.items()}
        if self.is_given:
            body["history"] = self.history[::-1].tolist()
        return body


@dataclass(frozen=True)
class LevelWorld:
    sizes: Sizes
    models: Path
    store: str  # URL
    parameters: int
    forward: PublishedForward
    ids: Ids  # (N,) ascending, every item in the store
    rows: ItemRows  # (N,)
    histories: Mapping[int, Ids]  # newest first
    users: Mapping[str, list[int]]  # by kind, of whom every second one has a history
    index: Mapping[int, int]  # of each user with a record

    def cases(self, count: int, seed: int = 1) -> Iterator[Case]:
        random = np.random.default_rng(seed)
        for number in range(count):
            kind = USER_KINDS[number % len(USER_KINDS)]
            past = HISTORY_KINDS[number // len(USER_KINDS) % len(HISTORY_KINDS)]
            users = self.users[kind]
            if past in ("stored", "none"):
                users = users[past == "none" :: 2]
            user = int(random.choice(users))
            candidates = random.choice(self.ids, random.integers(1, MOST_CANDIDATES + 1))
            candidates[random.random(len(candidates)) < 0.04] = ABSENT_ITEM + number
            levels = CONTEXT_KINDS[random.integers(len(CONTEXT_KINDS))]
            given = [n for n in LEVELS if levels.startswith((n[:5], "both"))]
            size, most = len(candidates), self.sizes.levels
            yield Case(
                user,
                self._known(user),
                self.histories[user] if past == "stored" else self._given(past, random),
                past.startswith("given"),
                candidates,
                {name: random.integers(0, most, size).astype(np.int32) for name in given},
                (f"user: {kind}", f"history: {past}", f"context: {levels}"),
            )

    def answers(self, cases: list[Case]) -> list[NDArray[np.float64]]:
        """(C,) each; NaN of a candidate that the store does not have."""
        inputs = [
            self.forward.x(
                self.known_rows(case.candidates),
                self.known_rows(case.history),
                case.index,
                {n: v[np.isin(case.candidates, self.ids)] for n, v in case.context.items()},
            )
            for case in cases
        ]
        ends = np.cumsum([len(x) for x in inputs])[:-1]
        found = np.split(self.forward.probabilities(np.concatenate(inputs)), ends)
        answers = []
        for case, some in zip(cases, found, strict=True):
            each = np.full(len(case.candidates), np.nan)
            each[np.isin(case.candidates, self.ids)] = some
            answers.append(each)
        return answers

    def kinds(self, case: Case) -> Counter[str]:
        """How many of its scores are of each kind."""
        scored = int(np.isin(case.candidates, self.ids).sum())
        rows, found = self.known_rows(case.candidates), Counter(dict.fromkeys(case.kinds, scored))
        found["item: cold"] = int((rows["item_id"] == 0).sum())
        found["item: no tags"] = int((rows["item_tags"] == 0).all(1).sum())
        found["item: no content"] = int((rows["item_emb_d128"] == 0).all(1).sum())
        found["item: no level"] = int(((rows[LEVELS[0]] == 0) | (rows[LEVELS[1]] == 0)).sum())
        found["candidates without a record"] = len(case.candidates) - scored
        return found

    def known_rows(self, ids: Ids) -> ItemRows:
        """Records of the ids that the store has; indices beyond a vocabulary are 0."""
        rows = self.rows[np.searchsorted(self.ids, ids[np.isin(ids, self.ids)])]
        most = {"item_id": self.sizes.items, **dict.fromkeys(LEVELS, self.sizes.levels)}
        for name, vocabulary in most.items():
            rows[name] = np.where((rows[name] > 0) & (rows[name] < vocabulary), rows[name], 0)
        return rows

    def _known(self, user: int) -> int:
        index = self.index.get(user, 0)
        return index if 0 < index < self.sizes.users else 0

    def _given(self, kind: str, random: np.random.Generator) -> Ids:
        if kind in ("none", "given empty"):
            return self.ids[:0]
        history = random.choice(self.ids, random.integers(1, self.sizes.history + 1))
        if kind == "given with unknown items":
            history[random.random(len(history)) < 0.4] = ABSENT_ITEM
        return history


def make_level_world(
    folder: Path, sizes: Sizes, seed: int = 0, announce: Callable[[str], None] = lambda step: None
) -> LevelWorld:
    """Write a random network as their state_dict, import it with ``--users``, build it, and load
    items, histories and users by the command line."""
    random = np.random.default_rng(seed)
    output = {"attention_width": sizes.A, "layers": sizes.layers, "rows": sizes.rows}
    announce("network and its state_dict")
    network = random_network(sizes.schema(), QINSizes(**output, output_bias=True), seed)
    parameters = sum(p.numel() for p in network.parameters())
    torch.save(their_state(network), folder / "QIN.model")
    del network

    schema = sizes.schema().model_dump(mode="json")
    schema["user"][0]["name"] = schema["user_identity"] = "user_index"
    layout = FeatureSchema.model_validate(schema)
    (folder / "schema.yaml").write_text(layout.to_yaml())
    rows = _items(sizes, layout, random)
    known = rows["item_id"] < sizes.items
    for name, part in (("items", rows[known]), ("cold", rows[~known])):
        _write_items(folder / f"{name}.parquet", part)
    users = np.unique(random.integers(1, 2**61, sizes.users - 1))
    index = random.permutation(np.arange(1, sizes.users))[: len(users)]
    pq.write_table(pa.table({"user_id": users, "user_index": index}), folder / "users.parquet")

    store = f"lmdb://{folder / 'store'}"
    announce("import")
    _run(
        model_export.__main__.app, "import-fuxictr", folder / "QIN.model", "--out", folder / "c",
        "--items", folder / "items.parquet", "--users", folder / "users.parquet",
        "--history", sizes.history,
    )  # fmt: skip
    announce("build")
    _run(model_export.__main__.app, "build", folder / "c", "--out", folder / "models")
    by_kind, records = _users(sizes, users)
    histories = _histories(sizes, rows, by_kind, random)
    seen = [[0] * (sizes.history - len(h)) + h[::-1].tolist() for h in histories.values()]
    pq.write_table(
        pa.table({"user_id": list(histories), "item_seq": seen}), folder / "histories.parquet"
    )
    announce("load")
    _run(
        feature_store.__main__.app, "load", store, "--schema", folder / "schema.yaml",
        "--items", folder / "items.parquet", "--items", folder / "cold.parquet",
        "--histories", folder / "histories.parquet", "--users", folder / "c/user_index.parquet",
    )  # fmt: skip
    ids = np.append(rows["item_id"].astype(np.int64), ABSENT_ITEM - 1)
    rows = np.append(rows, rows[:1])
    rows["item_id"][-1] = 0  # an item that has no index
    asyncio.run(_put(store, layout, ids[-1:], rows[-1:], records))
    state = torch.load(folder / "QIN.model", weights_only=True, mmap=True)
    tensors = {name: tensor.numpy() for name, tensor in state.items()}
    order = np.argsort(ids)
    return LevelWorld(
        sizes, folder / "models", store, parameters, PublishedForward(tensors),
        ids[order], rows[order], histories, by_kind,
        dict(zip(users.tolist(), index.tolist(), strict=True)) | records,
    )  # fmt: skip


def _items(sizes: Sizes, schema: FeatureSchema, random: np.random.Generator) -> ItemRows:
    """Ids are indices, of which the last tenth is beyond the vocabulary."""
    count = min(ITEMS, sizes.items - 1)
    rows = np.zeros(count + count // 10, schema.item_dtype)
    some = random.choice(np.arange(1, sizes.items), count, replace=False)
    rows["item_id"] = np.append(some, sizes.items + np.arange(count // 10))
    rows["item_tags"] = random.integers(0, sizes.tags, (len(rows), sizes.slots))
    rows["item_tags"][::7] = 0
    rows["item_emb_d128"] = random.normal(0, 1, (len(rows), sizes.C))
    rows["item_emb_d128"][::11] = 0
    for name in LEVELS:
        rows[name] = random.integers(0, sizes.levels, len(rows))
    rows[LEVELS[0]][count:] += sizes.levels // 2  # some beyond the vocabulary
    return rows


def _users(sizes: Sizes, users: Ids) -> tuple[dict[str, list[int]], dict[int, int]]:
    """Users by kind, and the records that are put into the store one by one."""
    kinds = {
        "last index": [sizes.users - 1],
        "index 0": [0],
        "beyond the vocabulary": [sizes.users, 2**31 - 1],
        "negative": [-1],
    }
    put = {
        kind: {ABSENT_USER + 100 * place + n: values[n % len(values)] for n in range(8)}
        for place, (kind, values) in enumerate(kinds.items(), 1)
    }
    found = {
        "known": users[:: max(1, len(users) // USERS)].tolist(),
        "no record": [ABSENT_USER + n for n in range(8)],
        **{kind: list(records) for kind, records in put.items()},
    }
    return found, {user: at for records in put.values() for user, at in records.items()}


def _histories(
    sizes: Sizes, rows: ItemRows, users: Mapping[str, list[int]], random: np.random.Generator
) -> dict[int, Ids]:
    """Of every second user, of every length, some of their items gone from the store."""
    found = {}
    for some in users.values():
        for number, user in enumerate(some[::2]):
            past = random.choice(rows["item_id"].astype(np.int64), 1 + number % sizes.history)
            past[random.random(len(past)) < 0.1] = ABSENT_ITEM
            found[user] = past
    return found


def _write_items(file: Path, rows: ItemRows) -> None:
    columns: dict[str, Any] = {name: rows[name] for name in ("item_id", *LEVELS)}
    columns |= {name: rows[name].tolist() for name in ("item_tags", "item_emb_d128")}
    pq.write_table(pa.table(columns), file)


async def _put(
    url: str, schema: FeatureSchema, ids: Ids, rows: ItemRows, users: Mapping[int, int]
) -> None:
    store = await connect(url, options=StoreOptions(budget_ms=10_000))
    await store.put_items(ids, rows)
    records = np.zeros(len(users), schema.user_dtype)
    records["user_index"] = list(users.values())
    await store.put_users(np.array(list(users), np.int64), records)
    await store.close()


def _run(app: Any, *arguments: str | int | Path) -> None:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == 0, done.output
