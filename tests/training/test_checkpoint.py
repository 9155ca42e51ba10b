"""A checkpoint is whole or absent, and says what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("config.json", None, r"not a checkpoint.*config\.json.*training fit"),
        ("model.safetensors", None, r"not a checkpoint.*model\.safetensors"),
        ("config.json", b"{}", r"config\.json: .*feature_schema"),
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
