"""A checkpoint is whole or absent, and says what is wrong with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.training.worlds import SIZES, SMALL
from training import checkpoint
from training.checkpoint import CheckpointError
from training.qin import QIN


@pytest.fixture
def network() -> QIN:
    torch.manual_seed(3)
    return QIN(SMALL, SIZES)


def test_what_is_saved_is_loaded(network: QIN, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "mine"
    checkpoint.save(folder, network, {"auc": 0.75}, {"curve.png": b"picture"})
    loaded = checkpoint.load(folder)
    assert not loaded.training
    assert (loaded.schema, loaded.sizes) == (SMALL, SIZES)
    assert checkpoint.read_metrics(folder) == {"auc": 0.75}
    for name, tensor in network.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor, rtol=0, atol=0)
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json",
        "curve.png",
        "metrics.json",
        "model.safetensors",
    ]
    assert [p.name for p in folder.parent.iterdir()] == ["mine"]  # nothing temporary is left


def test_saving_again_replaces_and_a_refused_save_leaves_what_was(
    network: QIN, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "mine", network, {"auc": 0.5}, {"old.png": b""})
    checkpoint.save(tmp_path / "mine", network, {"auc": 0.6})
    assert not (tmp_path / "mine" / "old.png").exists()
    with pytest.raises(CheckpointError, match=r"metrics\.json"):
        checkpoint.save(tmp_path / "mine", network, {"auc": float("nan")})
    with torch.no_grad():
        network.fc.weight[0, 2] = float("inf")
    with pytest.raises(CheckpointError, match=r"fc\.weight holds NaN or infinity"):
        checkpoint.save(tmp_path / "mine", network, {"auc": 0.7})
    assert checkpoint.read_metrics(tmp_path / "mine") == {"auc": 0.6}
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_folder_of_other_files_is_refused_and_left(network: QIN, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.parquet").write_bytes(b"rows")
    with pytest.raises(CheckpointError, match=r"data: holds files that are no checkpoint .train"):
        checkpoint.save(folder, network, {})
    checkpoint.save(tmp_path / "kept", network, {})
    (tmp_path / "kept" / "notes").mkdir()
    with pytest.raises(CheckpointError, match="kept: holds files that are no checkpoint"):
        checkpoint.save(tmp_path / "kept", network, {})
    with pytest.raises(CheckpointError, match=r"train\.parquet: is a file; give another --out"):
        checkpoint.save(folder / "train.parquet", network, {})
    for path in (Path("/"), Path("."), tmp_path / ".."):
        with pytest.raises(CheckpointError, match="needs a folder of its own"):
            checkpoint.check_out(path)
    assert (folder / "train.parquet").read_bytes() == b"rows"


def test_a_link_to_a_checkpoint_stays_one(network: QIN, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "first", network, {"auc": 0.5})
    (tmp_path / "latest").symlink_to("first")
    checkpoint.save(tmp_path / "latest", network, {"auc": 0.6})
    assert (tmp_path / "latest").is_symlink()
    assert checkpoint.read_metrics(tmp_path / "first") == {"auc": 0.6}


def test_files_of_a_checkpoint_may_be_read_by_others(network: QIN, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "mine", network, {})
    assert {path.stat().st_mode & 0o444 for path in (tmp_path / "mine").iterdir()} == {0o444}


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("config.json", None, r"not a checkpoint.*config\.json.*training fit"),
        ("model.safetensors", None, r"not a checkpoint.*model\.safetensors"),
        ("config.json", b"{}", r"config\.json: feature_schema: missing; sizes: missing"),
        ("config.json", b"{", r"config\.json: not JSON: EOF"),
        ("model.safetensors", b"short", r"model\.safetensors: damaged"),
    ],
)
def test_a_damaged_checkpoint_names_the_file(
    network: QIN, tmp_path: Path, file: str, content: bytes | None, complaint: str
) -> None:
    checkpoint.save(tmp_path / "mine", network, {})
    if content is None:
        (tmp_path / "mine" / file).unlink()
    else:
        (tmp_path / "mine" / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=complaint):
        checkpoint.load(tmp_path / "mine")


def test_weights_of_other_sizes_are_refused(network: QIN, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "mine", network, {})
    path = tmp_path / "mine" / "config.json"
    config = json.loads(path.read_bytes())
    config["sizes"]["rows"] = 2
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"does not fit config\.json"):
        checkpoint.load(tmp_path / "mine")
    config["format"] = 2
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="format"):
        checkpoint.load(tmp_path / "mine")


def test_metrics_that_cannot_be_read_are_an_error(network: QIN, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "mine", network, {})
    (tmp_path / "mine" / "metrics.json").write_text("[]")
    with pytest.raises(CheckpointError, match=r"metrics\.json: not a JSON object"):
        checkpoint.read_metrics(tmp_path / "mine")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "user_index.parquet"])
def test_a_file_that_is_not_what_was_saved_is_refused(
    network: QIN, tmp_path: Path, file: str
) -> None:
    folder, other = tmp_path / "mine", tmp_path / "other"
    checkpoint.save(folder, network, {}, {"user_index.parquet": b"first users"})
    torch.manual_seed(4)
    changed = QIN(SMALL, SIZES.model_copy(update={"dropout": 0.5}))
    checkpoint.save(other, changed, {}, {"user_index.parquet": b"other users"})
    (folder / file).write_bytes((other / file).read_bytes())
    with pytest.raises(CheckpointError, match=rf"{file}: not the file that metrics\.json has"):
        checkpoint.load(folder)
    kept = json.loads((folder / "metrics.json").read_text())
    del kept["files"]  # as earlier releases wrote it
    (folder / "metrics.json").write_text(json.dumps(kept))
    checkpoint.load(folder)


def test_one_flipped_bit_of_the_weights_is_refused(network: QIN, tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "mine", network, {})
    weights = tmp_path / "mine" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .* damaged, or of another"):
        checkpoint.load(tmp_path / "mine")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 77\n"


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "metrics.json"])
def test_a_git_lfs_pointer_is_named_with_its_remedy(
    network: QIN, tmp_path: Path, file: str
) -> None:
    checkpoint.save(tmp_path / "mine", network, {})
    (tmp_path / "mine" / file).write_bytes(POINTER)
    read = checkpoint.read_metrics if file == "metrics.json" else checkpoint.load
    with pytest.raises(CheckpointError, match=rf"{file}: a Git LFS pointer to 77 .*git lfs pull"):
        read(tmp_path / "mine")


def test_weights_that_do_not_fit_are_a_few_names_and_no_words_of_pytorch(
    network: QIN, tmp_path: Path
) -> None:
    checkpoint.save(tmp_path / "mine", network, {})
    save_file({"other": torch.zeros(2)}, tmp_path / "mine" / "model.safetensors")
    with pytest.raises(CheckpointError) as refused:
        checkpoint.load(tmp_path / "mine")
    told = str(refused.value)
    assert re.search(r"does not fit config\.json: \S+ is missing; .*; and \d+ more$", told)
    assert "state_dict" not in told
    weights = {n: t.to(torch.int8) for n, t in network.state_dict().items()}
    save_file(weights, tmp_path / "mine" / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"is torch\.int8 instead of torch\.float32"):
        checkpoint.load(tmp_path / "mine")


def test_an_encoder_s_checkpoint_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"vocab_size": 290, "hidden_size": 12}')
    with pytest.raises(CheckpointError, match=r"config\.json: of an encoder's checkpoint; `py"):
        checkpoint.load(tmp_path)


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "QIN.model").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"QIN\.model: a file.*import-fuxictr"):
        checkpoint.load(tmp_path / "QIN.model")


def test_names_that_are_not_ascii_are_saved_in_any_locale(network: QIN, tmp_path: Path) -> None:
    schema = SMALL.model_copy(update={"name": "Größe"})
    checkpoint.save(tmp_path / "mine", QIN(schema, SIZES), {"data": "Größe"})
    again = "import sys; from pathlib import Path; from training import checkpoint as c; "
    again += "p, q = map(Path, sys.argv[1:]); c.save(q, c.load(p), c.read_metrics(p))"
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", again, str(tmp_path / "mine"), str(tmp_path / "copy")],
        env=os.environ | locale,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert checkpoint.load(tmp_path / "copy").schema == schema
