"""Data with a planted taste: the challenge's format, and the statistics that are promised."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from feature_store.schema import FeatureSchema
from training.data.dataset import Data, open_data
from training.evaluation.metrics import auc
from training.synthetic import synthesize as synthesis
from training.synthetic.click_model import ClickModel, plant_items
from training.synthetic.synthesize import SIZES, SynthesisError, SynthesisSizes, Truth, synthesize

SMALL = SynthesisSizes(train=60_001, valid=8_001, test=4_003, items=600, tags=50, history=12)
TINY = SynthesisSizes(train=101, valid=21, test=22, items=40, tags=9, embedding=6, history=5)
CONTEXT = {"likes_level": pa.int64(), "views_level": pa.int64()}
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    synthesize(out, SMALL, seed=3)
    return out


@pytest.fixture(scope="module")
def data(folder: Path) -> Data:
    return open_data(folder, FeatureSchema.read(folder / "schema.yaml"))


def column(path: Path, name: str) -> NDArray[Any]:
    return np.array(pq.read_table(path, columns=[name])[name].to_pylist())


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_row_files_have_the_challenges_columns_types_and_exact_sizes(
    folder: Path, split: str
) -> None:
    schema = pq.read_schema(folder / f"{split}.parquet")
    numbers = {"user_id": pa.int64(), "item_seq": pa.list_(pa.int64()), "item_id": pa.int64()}
    last = {"ID": pa.int64()} if split == "test" else {"label": pa.float64()}
    expected = {**numbers, **CONTEXT, **last}
    assert schema.names == list(expected)
    assert [schema.field(name).type.equals(kind) for name, kind in expected.items()] == [True] * 6
    assert pq.read_metadata(folder / f"{split}.parquet").num_rows == getattr(SMALL, split)


def test_rows_to_be_predicted_are_numbered(folder: Path) -> None:
    assert column(folder / "test.parquet", "ID").tolist() == list(range(SMALL.test))


def test_item_files_have_the_challenges_columns_and_a_row_of_padding(folder: Path) -> None:
    info = pq.read_table(folder / "item_info.parquet")
    assert info.column_names == ["item_id", "item_tags", "item_emb_d128"]
    assert [str(kind) for kind in info.schema.types] == [
        "int64",
        "list<element: int64>",
        "list<element: double>",
    ]
    assert info["item_id"].to_pylist() == list(range(SMALL.items + 1))
    first = info.slice(0, 1).to_pylist()[0]
    assert first == {"item_id": 0, "item_tags": [0] * 5, "item_emb_d128": [0.0] * 32}
    tags = column(folder / "item_info.parquet", "item_tags")[1:]
    assert tags.min() == 0
    assert tags.max() <= SMALL.tags
    assert (tags[:, -1] > 0).all()  # 0-padded on the left, at least one each
    assert (np.diff((tags > 0).astype(int), axis=1) >= 0).all()
    feature = pq.read_table(folder / "item_feature.parquet")
    assert feature.column_names == ["item_id", "item_title", "item_tags", *CONTEXT]
    assert feature["item_id"].to_pylist() == list(range(1, SMALL.items + 1))
    assert np.array_equal(column(folder / "item_feature.parquet", "item_tags"), tags)


def test_the_same_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    def files(name: str, seed: int) -> dict[str, bytes]:
        synthesize(tmp_path / name, TINY, seed=seed)
        return {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()}

    once, again, other = files("once", 5), files("again", 5), files("other", 6)
    assert once == again
    assert {name for name in once if once[name] == other[name]} == {"schema.yaml"}


def test_small_sizes_over_several_blocks_are_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesis, "BLOCK_USERS", 4)
    told: list[tuple[str, int, int]] = []
    synthesize(tmp_path, TINY, on_progress=lambda *step: told.append(step))
    assert pq.read_metadata(tmp_path / "train.parquet").num_row_groups == 7  # 26 users by 4
    assert len(column(tmp_path / "train.parquet", "label")) == TINY.train
    assert [step for step in told if step[1] == step[2]] == [
        ("write train.parquet", 101, 101),
        ("write valid.parquet", 21, 21),
        ("write test.parquet", 22, 22),
    ]


def test_one_row_in_four_is_a_click(data: Data) -> None:
    assert abs(data.train.label.mean() - 0.25) < 0.01
    assert abs(data.valid.label.mean() - 0.25) < 0.02


def test_cold_items_are_in_no_training_row_and_in_a_twentieth_of_the_held_out(
    data: Data, folder: Path
) -> None:
    seen = np.union1d(data.train.target, data.train.history)
    cold = np.setdiff1d(np.arange(1, SMALL.items + 1), seen)
    assert len(cold) == round(0.08 * SMALL.items)
    for split in ("valid", "test"):
        target = column(folder / f"{split}.parquet", "item_id")
        assert 0.03 < np.isin(target, cold).mean() < 0.07


def test_histories_are_padded_on_the_left_and_some_are_short_or_empty(data: Data) -> None:
    history = np.asarray(data.train.history)
    assert (np.diff((history > 0).astype(int), axis=1) >= 0).all()
    length = (history > 0).sum(1)
    assert 0.02 < (length == 0).mean() < 0.04
    assert 0.08 < ((length > 0) & (length <= 4)).mean() < 0.12
    assert length.max() == SMALL.history


def test_users_are_sparse_63_bit_ids_of_four_rows_and_half_the_held_out_are_known(
    data: Data, folder: Path
) -> None:
    users, rows = np.unique(data.train.user, return_counts=True)
    assert len(users) == -(-SMALL.train // 4)
    assert sorted(set(rows.tolist())) == [1, 4]  # the last one's rows were cut off
    assert users.min() >= 0
    assert users.max() > 2**62
    for split in ("valid", "test"):
        held_out = np.unique(column(folder / f"{split}.parquet", "user_id"))
        assert abs(np.isin(held_out, users).mean() - 0.5) < 0.01


def test_a_returning_user_has_clicked_on_since(data: Data) -> None:
    before = dict(zip(data.train.user.tolist(), data.train.history.tolist(), strict=True))
    after = dict(zip(data.valid.user.tolist(), data.valid.history.tolist(), strict=True))
    back = before.keys() & after.keys()
    assert len(back) > 500
    for user in back:
        clicks = synthesis.LATER_CLICKS
        assert after[user][:-clicks] == before[user][clicks:]
        assert all(after[user][-clicks:])


def test_no_two_blocks_are_the_same_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "BLOCK_USERS", 10)
    synthesize(tmp_path, TINY)
    first, second = column(tmp_path / "train.parquet", "item_seq")[:80].reshape(2, 40, -1)
    assert (first == second).all(1).mean() < 0.2  # both may be empty


def test_level_buckets_rise_with_popularity(data: Data, folder: Path) -> None:
    shown = np.bincount(data.train.target, minlength=SMALL.items + 1)[1:]
    warm = shown > 0
    for name in CONTEXT:
        level = column(folder / "item_feature.parquet", name)
        assert sorted(set(level.tolist())) == list(range(1, 11))
        mean = [shown[warm & (level == bucket)].mean() for bucket in (1, 4, 7, 10)]
        assert mean == sorted(mean)
        assert mean[-1] > 3 * mean[0]
    of_row = {name: column(folder / "train.parquet", name) for name in CONTEXT}
    for i, name in enumerate(CONTEXT):
        item_level = column(folder / "item_feature.parquet", name)
        assert np.array_equal(of_row[name], item_level[data.train.target - 1])
        assert np.array_equal(of_row[name], data.train.context[:, i])


def test_content_and_tags_tell_of_an_items_neighbours_in_part() -> None:
    items = plant_items(np.random.default_rng(0), 400, 60, 5, 32)
    alike = items.latent[1:] @ items.latent[1:].T
    pairs = ~np.eye(400, dtype=bool)
    content = items.content[1:] / np.linalg.norm(items.content[1:], axis=1, keepdims=True)
    by_content = np.corrcoef((content @ content.T)[pairs], alike[pairs])[0, 1]
    marks = np.zeros((400, 61))
    np.put_along_axis(marks, items.tags[1:], 1, axis=1)
    shared = marks[:, 1:] @ marks[:, 1:].T
    by_tags = np.corrcoef(shared[pairs], alike[pairs])[0, 1]
    assert 0.7 < by_content < 0.99
    assert 0.2 < by_tags < 0.9


def test_a_click_is_likelier_where_history_and_candidate_are_alike() -> None:
    items = plant_items(np.random.default_rng(0), 300, 60, 5, 8)
    clicks = ClickModel(items, 10, np.random.default_rng(1))
    users = clicks.new_users(np.random.default_rng(2), 500)
    interest = items.latent[users.history].sum(1)
    everything = np.tile(np.arange(1, 301), (500, 1))
    p = clicks.probability(users.history, everything)
    alike = interest @ items.latent[1:].T
    popular = np.tile(items.popularity[1:], (500, 1))
    long = (users.history > 0).sum(1) == 10
    assert np.corrcoef(alike[long].ravel(), np.log(p / (1 - p))[long].ravel())[0, 1] > 0.8
    empty = ~users.history.any(1)
    assert empty.any()
    by_popularity = np.corrcoef(popular[empty].ravel(), np.log(p / (1 - p))[empty].ravel())[0, 1]
    assert by_popularity > 0.999  # nothing else is known of them


def test_interests_drift() -> None:
    items = plant_items(np.random.default_rng(0), 300, 60, 5, 8)
    clicks = ClickModel(items, 40, np.random.default_rng(1))
    users = clicks.new_users(np.random.default_rng(2), 3000)
    full = users.history[(users.history > 0).all(1)]
    v = items.latent[full]
    near = (v[:, -1] * v[:, -2]).sum(1).mean()
    far = (v[:, -1] * v[:, 0]).sum(1).mean()
    assert near > 1.1 * far > 0


def test_the_best_auc_is_that_of_the_true_probability(data: Data, folder: Path) -> None:
    truth = json.loads((folder / "truth.json").read_text())
    items = plant_items(
        np.random.default_rng([3, synthesis.ITEMS]), SMALL.items, SMALL.tags, 5, SMALL.embedding
    )
    clicks = ClickModel(items, SMALL.history, np.random.default_rng([3, synthesis.CLICKS]))
    valid = data.valid
    p = clicks.probability(
        np.asarray(valid.history, np.int64), np.asarray(valid.target, np.int64)[:, None]
    )[:, 0]
    assert truth["best_auc_valid"] == pytest.approx(auc(p, valid.label), abs=1e-12)
    assert 0.85 < truth["best_auc_valid"] < 0.99
    assert abs(p.mean() - valid.label.mean()) < 0.02
    for share in (0.1, 0.5, 0.9):  # the labels follow p: calibrated in every part
        near = np.abs(p - share) < 0.1
        assert abs(valid.label[near].mean() - p[near].mean()) < 0.06
    noisy = p + np.random.default_rng(0).normal(0, 0.1, len(p))
    assert auc(noisy, valid.label) < truth["best_auc_valid"]


def test_the_truth_tells_seed_and_sizes(tmp_path: Path) -> None:
    truth = synthesize(tmp_path, TINY, seed=9)
    assert isinstance(truth, Truth)
    written = json.loads((tmp_path / "truth.json").read_text())
    assert written["seed"] == 9
    assert SynthesisSizes(**written["sizes"]) == TINY
    assert written["best_auc_valid"] == truth.best_auc_valid
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "item_feature.parquet",
        "item_info.parquet",
        "schema.yaml",
        "test.parquet",
        "train.parquet",
        "truth.json",
        "valid.parquet",
    ]


def test_a_synthesis_that_fails_leaves_the_files_that_were_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthesize(tmp_path, TINY, seed=1)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def fail(what: str, done: int, total: int) -> None:
        if what == "write valid.parquet":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path, TINY, seed=2, on_progress=fail)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_the_challenge_preset_has_the_challenges_own_sizes_and_schema() -> None:
    sizes = SIZES["challenge"]
    assert (sizes.train, sizes.valid, sizes.test) == (3_600_000, 10_000, 379_142)
    assert sizes.schema == FeatureSchema.microlens()
    assert SIZES["demo"].schema.name == "synthetic"


def test_sizes_that_make_no_data_are_refused() -> None:
    for wrong in ({"items": 1}, {"valid": 0}, {"tags": 0}, {"history": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SynthesisSizes(**wrong)


def test_rows_of_one_label_are_refused_since_no_auc_is_known_of_them(tmp_path: Path) -> None:
    def synthesize_twenty() -> None:
        for seed in range(20):
            synthesize(tmp_path, replace(TINY, valid=4), seed=seed)

    with pytest.raises(SynthesisError, match="valid: 4 rows have but one label; make more"):
        synthesize_twenty()


def test_fewer_tags_than_slots_and_one_number_of_content_are_possible(tmp_path: Path) -> None:
    sizes = replace(TINY, tags=2, embedding=1, history=1)
    synthesize(tmp_path, sizes)
    data = open_data(tmp_path, sizes.schema)
    assert data.train.history.shape == (TINY.train, 1)
    tags = data.train.items.rows["item_tags"][1:]
    assert set(tags[:, :3].ravel().tolist()) == {0}
