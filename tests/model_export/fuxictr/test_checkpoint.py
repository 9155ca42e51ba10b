"""The authors' checkpoints: what they answer here is what they answered there."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from feature_store.schema import FeatureSchema
from model_export.__main__ import app
from model_export.build import build
from model_export.bundle.errors import BundleError
from model_export.bundle.runtime import FoldedModel
from model_export.fuxictr.checkpoint import import_network
from model_export.fuxictr.state_file import read_state
from model_export.quality.golden_cases import network_answer, network_items
from tests.model_export.naive_published import CONTENT, TABLE, USER, probability
from training import checkpoint

ITEMS, TAGS, LEVELS, SLOTS, HISTORY = 40, 15, 11, 5, 6


def their_state(
    E: int = 6,
    P: int = 4,
    C: int = 4,
    A: int = 10,
    layers: int = 4,
    R: int = 4,
    seed: int = 0,
    users: int = 0,
) -> dict[str, Tensor]:
    """As FuxiCTR saves it, at small sizes; with ``users`` in the level variant."""
    D = (4 if users else 2) * E + P
    X = (3 if users else 2) * E + 2 * D
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 0.3) -> Tensor:
        return torch.randn(*shape, generator=g) * scale

    state = {
        f"{TABLE}.likes_level.weight": normal(LEVELS, E),
        f"{TABLE}.views_level.weight": normal(LEVELS, E),
        f"{TABLE}.item_id.weight": normal(ITEMS + 1, E),
        f"{TABLE}.item_tags.weight": normal(TAGS, E),
        CONTENT: normal(P, C),
        "attention_layers.W_q.weight": normal(A, D),
        "attention_layers.W_k.weight": normal(A, D),
        "attention_layers.W_v.weight": normal(A, D),
        "attention_layers.W_o.weight": normal(D, A),
    }
    if users:
        state = {USER: normal(users, E)} | state  # in the order of the features
        state["attention_layers.W_o.bias"] = normal(D)
    for name in [n for n in state if n.startswith(TABLE)]:
        state[name][0] = 0
    for n in range(layers):
        state |= {
            f"qnn.layer.{n}.linear.0.weight": normal(R * X, X, scale=0.1),
            f"qnn.layer.{n}.linear.0.bias": normal(R * X),
            f"qnn.norm.{n}.weight": normal(X).abs() + 0.1,
            f"qnn.norm.{n}.bias": normal(X),
            f"qnn.norm.{n}.running_mean": normal(X),
            f"qnn.norm.{n}.running_var": normal(X).abs() + 0.5,
            f"qnn.norm.{n}.num_batches_tracked": torch.tensor(1234),
            f"qnn.activation.{n}.weight": torch.tensor([0.1 + 0.05 * n]),
        }
    return state | {"qnn.fc.weight": normal(1, X), "qnn.fc.bias": normal(1)}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = np.random.default_rng(1)
    tags = random.integers(0, TAGS, (ITEMS + 1, SLOTS)) * (random.random((ITEMS + 1, SLOTS)) < 0.6)
    content = random.normal(size=(ITEMS + 1, 4))
    level = random.integers(1, LEVELS, (2, ITEMS + 1))
    for part in (tags, content):
        part[0] = 0
    level[:, 0] = 0
    path = tmp_path_factory.mktemp("items") / "item_info.parquet"
    pq.write_table(
        pa.table(
            {
                "item_id": np.arange(ITEMS + 1),
                "item_tags": tags.tolist(),
                "item_emb_d128": content.tolist(),
                "likes_level": level[0],
                "views_level": level[1],
            }
        ),
        path,
    )
    return path


def run(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["import-fuxictr", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_a_folder_of_other_files_is_refused_and_left(tmp_path: Path) -> None:
    out = tmp_path / "data"
    out.mkdir()
    (out / "train.parquet").write_bytes(b"rows")
    absent = tmp_path / "absent.model"
    code, _, told = run(absent, "--items", tmp_path / "absent.parquet", "--out", out)
    assert code == 1
    assert told.startswith(f"error: {out}: holds files that are no checkpoint (train.parquet, …)")
    assert (out / "train.parquet").read_bytes() == b"rows"


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"E": 3, "P": 5, "A": 7, "layers": 2, "R": 3},
        {"layers": 1, "R": 1},
        {"layers": 6},
        {"users": 31, "R": 3},
        {"users": 7, "E": 3, "P": 5, "A": 7, "layers": 2, "R": 2},
        {"users": 2, "E": 5, "P": 2, "layers": 1, "R": 1},
        {"users": 97, "layers": 6, "A": 33},
    ],
    ids=[
        "as published",
        "other widths",
        "one row",
        "six layers",
        "levels",
        "levels of other widths",
        "levels of one row",
        "levels of six layers",
    ],
)
def test_answers_are_those_of_the_published_forward(
    sizes: dict[str, int], table: Path, tmp_path: Path
) -> None:
    state = their_state(**sizes)
    torch.save(state, tmp_path / "QIN.model")
    out = tmp_path / "checkpoint"
    code, told, error = run(
        tmp_path / "QIN.model", "--items", table, "--out", out, "--history", HISTORY, "--json"
    )
    assert code == 0, error
    floats = [t for name, t in state.items() if not name.endswith(("_mean", "_var", "_tracked"))]
    assert orjson.loads(told)["parameters"] == sum(t.numel() for t in floats)
    network = checkpoint.load(out)
    assert (network.schema.history_length, network.schema.item[-2].slots) == (HISTORY, SLOTS)

    users = sizes.get("users", 0)
    assert [f.name for f in network.schema.user] == ["user_id"] * bool(users)
    weights = {name: tensor.double().numpy() for name, tensor in state.items()}
    catalogue = pq.read_table(table).to_pylist()
    rows = np.zeros(ITEMS, network.schema.item_dtype)
    for name in rows.dtype.names or ():
        rows[name] = [item[name] for item in catalogue[1:]]
    random = np.random.default_rng(2)
    model = FoldedModel(build(network, tmp_path / "models"))
    for length in range(HISTORY + 1):
        user, number = np.zeros(1, network.schema.user_dtype), length % users if users else 0
        if users:
            user["user_id"] = number if length % 2 else users + number  # odd ones are unknown
            number *= length % 2
        history = random.integers(0, ITEMS, length).astype(np.int32)
        candidates = random.integers(0, ITEMS, 5).astype(np.int32)
        context = np.stack([rows[n][candidates] for n in ("likes_level", "views_level")], 1)
        expected = [
            probability(weights, catalogue[c + 1], [catalogue[h + 1] for h in history], number)
            for c in candidates
        ]
        ours = network_answer(
            network, network_items(network.schema, rows), history, candidates, context, user=user
        )
        np.testing.assert_allclose(ours, expected, atol=1e-5)
        vectors = model.items(rows)
        past = model.history(vectors.vector[history])
        served = model.rank(vectors.take(candidates), past, model.user(user))
        np.testing.assert_allclose(served, expected, atol=1e-5)


def test_everything_that_does_not_fit_is_told_at_once() -> None:
    state = their_state()
    del state["attention_layers.W_k.weight"], state["qnn.norm.2.running_var"]
    state["qnn.extra.weight"] = torch.zeros(1)
    state["qnn.layer.1.linear.0.weight"] = state["qnn.layer.1.linear.0.weight"][:, :-1]
    state["qnn.fc.bias"] = state["qnn.fc.bias"].double()
    state["qnn.norm.0.bias"][3] = float("nan")
    state[f"{TABLE}.item_id.weight"][0, 1] = 1.0
    with pytest.raises(BundleError) as refused:
        import_network(state, SLOTS, HISTORY, "QIN.model")
    told = str(refused.value)
    assert "QIN.model: 7 keys do not fit" in told
    for line in (
        "attention_layers.W_k.weight: missing, (10, 16) expected",
        "qnn.norm.2.running_var: missing, (44) expected",
        "qnn.extra.weight: unknown",
        "qnn.layer.1.linear.0.weight: (176, 43) instead of (176, 44)",
        "qnn.fc.bias: torch.float64 instead of torch.float32",
        "qnn.norm.0.bias: holds NaN or infinity",
        f"{TABLE}.item_id.weight: row 0 is padding and must be zero",
    ):
        assert f"\n  {line}\n" in told


@pytest.mark.parametrize(
    ("lacking", "fault"),
    [
        (USER, r"users and levels: 1 missing\n  .*user_id\.weight: missing, \(\?, 6\) expected"),
        ("attention_layers.W_o.bias", r"users and levels: 1 missing\n  .*W_o\.bias: missing"),
        ("qnn.fc.bias", r"users and levels: 1 missing\n  qnn\.fc\.bias"),
    ],
)
def test_the_nearest_variant_is_named(lacking: str, fault: str) -> None:
    state = their_state(users=9)
    del state[lacking]
    with pytest.raises(BundleError, match=r"x: 1 keys do not fit QIN_variety_v9 with " + fault):
        import_network(state, SLOTS, HISTORY, "x")


def test_unknown_users_are_scored_with_row_0_as_it_was_trained(table: Path, tmp_path: Path) -> None:
    state = their_state(users=9)
    state[USER][0] = 1.5
    torch.save(state, tmp_path / "QIN.model")
    code, _, said = run(tmp_path / "QIN.model", "--items", table, "--out", tmp_path / "c")
    assert code == 0
    assert said.endswith("row 0 of user_id is not zero: unknown users are scored with it\n")
    network = checkpoint.load(tmp_path / "c")
    model = FoldedModel(build(network, tmp_path / "models"))
    catalogue = pq.read_table(table).to_pylist()
    rows = np.zeros(ITEMS, network.schema.item_dtype)
    for name in rows.dtype.names or ():
        rows[name] = [item[name] for item in catalogue[1:]]
    vectors = model.items(rows)
    served = model.rank(vectors.part(0, 5), model.history(vectors.vector[5:9]))
    weights = {name: tensor.double().numpy() for name, tensor in state.items()}
    expected = [probability(weights, catalogue[c + 1], catalogue[6:10]) for c in range(5)]
    np.testing.assert_allclose(served, expected, atol=1e-5)


def test_the_authors_level_variant_has_the_schema_that_is_shipped() -> None:
    text = Path("feature_store/schemas/microlens-levels.yaml").read_text("utf-8")
    shipped = FeatureSchema.from_yaml(text, source="microlens-levels.yaml")
    assert (shipped.item_vector_width, shipped.network_width) == (640, 1664)
    network = import_network(their_state(users=9), SLOTS, 64, "x")
    kinds = ("user", "item", "context")
    for kind in kinds:
        ours, theirs = (getattr(schema, kind) for schema in (shipped, network.schema))
        assert [(f.name, f.kind) for f in ours] == [(f.name, f.kind) for f in theirs]
    assert shipped.user_identity == network.schema.user_identity == "user_id"
    assert shipped.shared == network.schema.shared == {"likes_level", "views_level"}
    assert shipped.name == network.schema.name


def test_a_missing_layer_in_the_middle_is_missing_and_not_taken_for_the_end() -> None:
    state = {name: t for name, t in their_state().items() if ".1." not in name}
    with pytest.raises(BundleError, match=r"8 keys.*\n  qnn\.layer\.1\.linear\.0\.weight: missing"):
        import_network(state, SLOTS, HISTORY, "x")


def test_an_empty_file_misses_everything() -> None:
    with pytest.raises(BundleError, match=r"(?s)43 keys.*item_id\.weight: missing, \(\?, \?\)"):
        import_network({}, SLOTS, HISTORY, "x")


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("harmed"),))


@pytest.mark.parametrize("kind", ["pickle", "whole object", "text", "absent", "not tensors"])
def test_what_is_no_state_dict_is_refused_unexecuted(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "QIN.model"
    match kind:
        case "pickle":
            file.write_bytes(pickle.dumps(Harmful()))
        case "whole object":
            torch.save({"x": Harmful()}, file)
        case "text":
            file.write_text("not a checkpoint")
        case "not tensors":
            torch.save({"epoch": 3}, file)
    with pytest.raises(BundleError, match=r"QIN\.model: not a"):
        read_state(file)
    assert not (tmp_path / "harmed").exists()


def test_items_beyond_the_checkpoints_vocabulary_are_refused(table: Path, tmp_path: Path) -> None:
    state = their_state()
    state[f"{TABLE}.item_id.weight"] = state[f"{TABLE}.item_id.weight"][:-3]
    torch.save(state, tmp_path / "QIN.model")
    code, _, error = run(tmp_path / "QIN.model", "--items", table, "--out", tmp_path / "c")
    assert code == 1
    assert "item_info.parquet" in error
    assert "item_id" in error
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("key", "tensor", "fault"),
    [
        (USER, torch.tensor(1.0), r"\(\) instead of"),
        (USER, torch.ones(9, 6).to_sparse(), "a sparse tensor, or one without values"),
        (USER, torch.empty(9, 6, device="meta"), "a sparse tensor, or one without values"),
        ("qnn.norm.0.running_var", torch.empty(0), "holds a negative variance"),
    ],
    ids=["scalar", "sparse", "meta", "variance"],
)
def test_tensors_that_no_training_leaves_are_refused_by_name(
    key: str, tensor: Tensor, fault: str, table: Path, tmp_path: Path
) -> None:
    state = their_state(users=9)
    if key != USER:
        tensor = torch.full_like(state[key], -1)
    torch.save(state | {key: tensor}, tmp_path / "QIN.model")
    code, _, error = run(tmp_path / "QIN.model", "--items", table, "--out", tmp_path / "out")
    assert code == 1
    assert re.search(rf"{re.escape(key)}: {fault}", error)
