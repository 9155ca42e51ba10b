from pathlib import Path

import pytest
import torch

from feature_store.schema import Categorical, Dense, FeatureSchema
from training import checkpoint
from training.qin import QIN, QINSizes

SCHEMA = FeatureSchema(
    name="small",
    history_length=4,
    identity="item",
    item=(
        Categorical(name="item", vocabulary=9, width=3),
        Dense(name="content", kind="dense", size=5, width=2),
    ),
    context=(Categorical(name="level", vocabulary=4, width=2),),
)
SIZES = QINSizes(attention_width=6, layers=2, rows=2, dropout=0.3)


def network() -> QIN:
    torch.manual_seed(1)
    return QIN(SCHEMA, SIZES)


def test_what_was_saved_is_loaded_in_eval_mode(tmp_path: Path) -> None:
    model = network()
    checkpoint.save(tmp_path / "c", model, {"valid_auc": 0.7})
    loaded = checkpoint.load(tmp_path / "c")
    assert not loaded.training
    assert (loaded.schema, loaded.sizes) == (SCHEMA, SIZES)
    assert checkpoint.read_metrics(tmp_path / "c") == {"valid_auc": 0.7}
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_saving_again_replaces_the_checkpoint_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", network(), {"epoch": 1})
    checkpoint.save(tmp_path / "c", network(), {"epoch": 2})
    assert checkpoint.read_metrics(tmp_path / "c") == {"epoch": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_failed_save_leaves_the_old_checkpoint_whole(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", network(), {"epoch": 1})
    with pytest.raises(ValueError, match="JSON"):
        checkpoint.save(tmp_path / "c", network(), {"auc": float("nan")})
    assert checkpoint.read_metrics(tmp_path / "c") == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: (c / "config.json").unlink(), "python -m training fit"),
        (lambda c: (c / "config.json").write_text("{"), "config.json"),
        (lambda c: (c / "model.safetensors").write_bytes(b"\x00" * 40), "damaged"),
        (
            lambda c: (c / "config.json").write_text(
                (c / "config.json").read_text().replace('"rows": 2', '"rows": 3')
            ),
            "does not fit config.json",
        ),
    ],
)
def test_a_damaged_checkpoint_says_which_file(tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    checkpoint.save(tmp_path / "c", network(), {})
    damage(tmp_path / "c")
    with pytest.raises(checkpoint.CheckpointError, match=message):
        checkpoint.load(tmp_path / "c")
