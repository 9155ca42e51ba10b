"""Odd checkpoints of the level variant: served exactly, or refused by tensor with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from model_export.bundle.errors import BundleError
from model_export.fuxictr.checkpoint import import_network
from tests.model_export.fuxictr.test_checkpoint import run, table, their_state
from tests.model_export.naive_published import CONTENT, TABLE, USER
from training import checkpoint

__all__ = ["table"]  # a fixture

State = dict[str, Tensor]
LIKES, VIEWS = (f"{TABLE}.{name}.weight" for name in ("likes_level", "views_level"))
SECOND = "item_embedding.embedding_layers.likes_level.weight"
OTHER_MODEL = "was it saved by another model, or with other features?"


def level_state(**sizes: int) -> State:
    return their_state(**({"users": 9} | sizes))


def imported(state: State, items: Path, folder: Path) -> tuple[int, str]:
    torch.save(state, folder / "QIN.model")
    code, _, said = run(folder / "QIN.model", "--items", items, "--out", folder / "c")
    return code, said


REFUSED: dict[str, tuple[Callable[[State], State], str, str]] = {
    "a table of padding alone": (
        lambda s: s | {USER: s[USER][:1].clone()},
        f"{USER}: (1, 6), padding alone: no value has a row",
        OTHER_MODEL,
    ),
    "an empty table": (
        lambda s: s | {USER: s[USER][:0].clone()},
        f"{USER}: (0, 6), which is empty",
        OTHER_MODEL,
    ),
    "content of another width": (
        lambda s: s | {CONTENT: torch.zeros(5, 4)},
        f"{CONTENT}: (5, 4) instead of (4, 4)",
        OTHER_MODEL,
    ),
    "a level table missing": (
        lambda s: {k: t for k, t in s.items() if k != VIEWS},
        f"{VIEWS}: missing, (?, 6) expected",
        OTHER_MODEL,
    ),
    "a table twice": (
        lambda s: s | {SECOND: s[LIKES].clone()},
        f"{SECOND}: unknown, equal to {LIKES}: leave it out of the file if both are one table",
        OTHER_MODEL,
    ),
    "two tables of a feature": (
        lambda s: s | {SECOND: s[LIKES] + 1},
        f"{SECOND}: unknown, not equal to {LIKES}: one table a feature is served",
        OTHER_MODEL,
    ),
    "padding with values": (
        lambda s: s | {LIKES: s[LIKES] + 1},
        f"{LIKES}: row 0 is padding and must be zero",
        "set row 0 to zero if no row of training had index 0",
    ),
    "not a number": (
        lambda s: s | {CONTENT: s[CONTENT] / 0},
        f"{CONTENT}: holds NaN or infinity",
        "import the checkpoint of another epoch",
    ),
    "integers": (
        lambda s: s | {CONTENT: s[CONTENT].int()},
        f"{CONTENT}: torch.int32 instead of torch.float32",
        "save the network's own tensors, in a floating-point type",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refusal_names_the_tensor_and_the_remedy(kind: str, table: Path, tmp_path: Path) -> None:
    change, fault, remedy = REFUSED[kind]
    code, said = imported(change(level_state()), table, tmp_path)
    assert code == 1
    head, line, last = said.splitlines()
    assert "QIN.model: 1 keys do not fit QIN_variety_v9 with users and levels: 1 " in head
    assert (line, last) == (f"  {fault}", remedy)
    assert not (tmp_path / "c").exists()


def test_layers_beyond_those_served_say_how_many_are(table: Path, tmp_path: Path) -> None:
    code, said = imported(level_state(layers=33, R=1, E=2), table, tmp_path)
    assert code == 1
    assert "qnn.layer.32.linear.0.weight: unknown: at most 32 layers are served\n" in said


@pytest.mark.parametrize(
    ("sizes", "tensor"),
    [
        ({"layers": 1, "R": 65, "E": 1}, "qnn.layer.0.linear.0.weight: rows"),
        ({"layers": 1, "R": 1, "E": 1, "P": 4097, "A": 1}, CONTENT),
    ],
)
def test_sizes_beyond_those_served_name_the_tensor(
    sizes: dict[str, int], tensor: str, table: Path, tmp_path: Path
) -> None:
    code, said = imported(level_state(**sizes), table, tmp_path)
    assert code == 1
    assert f"sizes beyond those served: {tensor}: Input should be less than" in said


def test_sizes_that_are_not_of_a_tensor_say_where_they_are_from() -> None:
    for slots, history, origin in ((1025, 5, "item_tags, the most"), (5, 2049, "--history: Input")):
        with pytest.raises(BundleError, match=f"x: sizes beyond those served: {origin}"):
            import_network(level_state(), slots, history, "x")


def test_counts_of_batches_may_be_of_half_precision(table: Path, tmp_path: Path) -> None:
    state = level_state()
    code, said = imported({k: t.half() for k, t in state.items()}, table, tmp_path)
    assert code == 0, said
    network = checkpoint.load(tmp_path / "c")
    found = network.user_vector.embedding["user_id"].weight
    torch.testing.assert_close(found.data, state[USER].half().float(), rtol=0, atol=0)


ORDER = "likes_level, views_level, item_id, item_tags"


@pytest.mark.parametrize(
    ("order", "said"),
    [
        ("as the authors'", ""),
        ("by name", ""),
        (
            "users last",
            f"tables are in the order {ORDER}, user_id, and imported as user_id, {ORDER}",
        ),
    ],
)
def test_another_order_of_features_is_warned_about(
    order: str, said: str, table: Path, tmp_path: Path
) -> None:
    state = level_state()
    if order == "by name":
        state = dict(sorted(state.items()))
    elif order == "users last":
        state[USER] = state.pop(USER)
    code, told = imported(state, table, tmp_path)
    assert code == 0
    assert (said in told) if said else not told


def test_negative_zeros_in_the_row_of_item_0_are_padding(table: Path, tmp_path: Path) -> None:
    items = pq.read_table(table)
    content = items["item_emb_d128"].to_pylist()
    content[0] = [-0.0] * len(content[0])
    place = items.column_names.index("item_emb_d128")
    changed = items.set_column(place, "item_emb_d128", pa.array(content))
    pq.write_table(changed, tmp_path / "items.parquet")
    code, said = imported(level_state(), tmp_path / "items.parquet", tmp_path)
    assert code == 0, said


def test_a_users_file_without_users_is_refused(table: Path, tmp_path: Path) -> None:
    torch.save(level_state(), tmp_path / "QIN.model")
    none = pa.array([], pa.int64())
    pq.write_table(pa.table({"user_id": none, "user_index": none}), tmp_path / "users.parquet")
    given = (tmp_path / "QIN.model", "--items", table, "--out", tmp_path / "c")
    code, _, said = run(*given, "--users", tmp_path / "users.parquet")
    assert code == 1
    assert "users.parquet: holds no users: import without --users" in said
