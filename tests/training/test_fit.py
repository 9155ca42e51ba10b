import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests import programs
from tests.training import two_processes
from tests.training.fitting import RECIPE, run, with_dropout
from tests.training.one_step import one_step
from tests.training.worlds import SIZES, SMALL, small_rows
from training import checkpoint
from training.checkpoint import CheckpointError
from training.data.rows import Rows
from training.evaluation.metrics import auc
from training.loop import fit as module
from training.loop.data_parallel import ProcessGroup, process_group
from training.loop.fit import DivergedError, fit, predict
from training.loop.optimiser import Optimiser, regularised
from training.loop.run import FitError, Run
from training.qin import QIN
from training.recipe import Recipe
from training.recipe_files import preset


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(folder).state_dict()


def test_the_default_recipe_is_the_published_one() -> None:
    assert preset("published").model_dump() == {
        "sizes": {"attention_width": 768, "layers": 4, "rows": 4, "dropout": 0.1},
        "learning_rate": 2e-3,
        "batch_size": 8192,
        "smallest_batch": 64,
        "embedding_regulariser": 2e-4,
        "gradient_clip": 10.0,
        "learning_rate_factor": 0.5,
        "learning_rate_floor": 1e-6,
        "norm_momentum": 0.1,
        "patience": 8,
        "epochs": 100,
        "seed": 20242025,
        "adam": {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
        "initial": {"embedding_deviation": 1e-4, "linear_gain": 1.0, "prelu_slope": 0.25},
        "user_min_count": 1,
        "touched_rows_above": 100_000,
    }


def test_training_learns_what_is_there_to_learn(tmp_path: Path) -> None:
    run(tmp_path / "new" / "c")
    rows = small_rows(300, seed=2)
    scores = predict(checkpoint.load(tmp_path / "new" / "c"), rows)
    metrics = checkpoint.read_metrics(tmp_path / "new" / "c")
    assert metrics["valid_auc"] == pytest.approx(auc(scores, rows.label))
    assert metrics["valid_auc"] > 0.8
    assert (tmp_path / "new" / "c" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_kept_epoch_is_the_best_one_and_the_learning_rate_halves_without_improvement(
    tmp_path: Path,
) -> None:
    run(tmp_path / "c", RECIPE.model_copy(update={"epochs": 40, "patience": 3}))
    metrics = checkpoint.read_metrics(tmp_path / "c")
    epochs = metrics["epochs"]
    values = [e["valid_auc"] for e in epochs]
    assert metrics["best_epoch"] == 1 + int(np.argmax(values))
    assert len(epochs) < 40, "early stop"
    assert len(epochs) == metrics["best_epoch"] + 3  # an equal value is no improvement
    for before, epoch in itertools.pairwise(epochs):
        improved = epoch["valid_auc"] > max(e["valid_auc"] for e in epochs[: epoch["epoch"] - 1])
        factor = 1.0 if improved else 0.5
        assert epoch["learning_rate"] == pytest.approx(before["learning_rate"] * factor)


def test_the_learning_rate_has_a_floor(tmp_path: Path) -> None:
    floor = RECIPE.learning_rate / 3
    recipe = {"epochs": 30, "patience": 6, "learning_rate_floor": floor}
    run(tmp_path / "c", RECIPE.model_copy(update=recipe))
    rates = [e["learning_rate"] for e in checkpoint.read_metrics(tmp_path / "c")["epochs"]]
    assert min(rates) == pytest.approx(floor)


def test_a_learning_rate_below_its_floor_is_not_raised(tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"learning_rate_floor": 1.0})
    network = QIN(SMALL, SIZES)
    alone, state = ProcessGroup(rank=0, count=1), tmp_path / "state"
    run = Run(network, Optimiser(network, recipe), recipe, "", state, alone)
    for value in (0.6, 0.5, 0.4):  # an improvement, then two epochs without
        run.judge(value)
        assert run.learning_rate == RECIPE.learning_rate


def test_a_folder_of_other_files_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "train.parquet").touch()
    steps: list[str] = []
    with pytest.raises(CheckpointError, match="holds files that are no checkpoint"):
        fit_with(RECIPE, tmp_path / "c", lambda what, done, total: steps.append(what))
    assert steps == []
    assert [path.name for path in tmp_path.rglob("*")] == ["c", "train.parquet"]


def test_a_run_that_diverges_at_once_ends_there_and_leaves_nothing(tmp_path: Path) -> None:
    recipe = {
        "learning_rate": 10.0,
        "gradient_clip": 1e9,
        "initial": RECIPE.initial.model_copy(update={"linear_gain": 100.0}),
    }
    with pytest.raises(DivergedError, match=r"diverged in epoch 1: .* lower learning_rate"):
        run(tmp_path / "c", RECIPE.model_copy(update=recipe))
    assert list(tmp_path.iterdir()) == []


def test_values_of_the_validation_rows_are_not_told_as_a_rate_that_is_too_high(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def infinite(network: object, rows: Rows, **_: Any) -> Any:
        return np.full(len(rows), np.inf, np.float32)

    monkeypatch.setattr(module, "predict", infinite)
    said = r"scores of the validation rows, not the loss, are .*look for values far from those of t"
    with pytest.raises(DivergedError, match=said):
        run(tmp_path / "c")


def test_a_run_that_diverges_later_keeps_its_best_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    train_epoch = module._train_epoch

    def diverging(run: Run, *rest: Any) -> float:
        loss = train_epoch(run, *rest)
        if run.epoch == 3:
            with torch.no_grad():
                run.network.fc.weight.fill_(float("nan"))
        return loss

    monkeypatch.setattr(module, "_train_epoch", diverging)
    run(tmp_path / "c")
    metrics = checkpoint.read_metrics(tmp_path / "c")
    assert [e["epoch"] for e in metrics["epochs"]] == [1, 2]
    kept = f"epoch {metrics['best_epoch']} is kept"
    assert f"diverged in epoch 3: loss or weights are NaN or infinite; {kept}" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_run_killed_in_the_middle_goes_on_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    state, said = tmp_path / ".killed.resume.pt", tmp_path / "said"
    words = ("tests.training.fitting", str(tmp_path / "killed"))
    with programs.running(*words, out=said, err=said) as process:
        deadline = time.monotonic() + 120
        while not (said.exists() and "paused" in said.read_text()):
            assert process.is_alive(), said.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.kill()
        process.join()
    assert epochs_done(state) == 2
    assert not (tmp_path / "killed").exists(), "a checkpoint is whole or absent"
    run(tmp_path / "killed")
    run(tmp_path / "whole")
    killed, whole = weights(tmp_path / "killed"), weights(tmp_path / "whole")
    for name, tensor in whole.items():
        assert torch.equal(killed[name], tensor), name
    assert not state.exists()


def epochs_done(state: Path) -> int:
    return int(torch.load(state, weights_only=True)["standing"][0])


def test_progress_says_how_many_epochs_there_may_be(tmp_path: Path) -> None:
    steps: set[str] = set()
    fit_with(RECIPE, tmp_path / "c", lambda what, done, total: steps.add(what))
    assert f"epoch 1 of at most {RECIPE.epochs}" in steps


def test_a_stopped_run_with_another_recipe_is_refused_by_name(tmp_path: Path) -> None:
    run(tmp_path / "c", RECIPE.model_copy(update={"epochs": 1}))
    recipe = RECIPE.model_copy(update={"seed": 4})
    state = tmp_path / ".c.resume.pt"

    def stop(what: str, done: int, total: int) -> None:
        if state.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_with(RECIPE, tmp_path / "c", stop)
    with pytest.raises(
        FitError,
        match=r"another recipe was stopped here \(seed 3, not 4\); "
        r".*remove this file.*another --out",
    ):
        fit_with(recipe, tmp_path / "c", lambda what, done, total: None)


def test_a_damaged_resume_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / ".c.resume.pt").write_bytes(b"not a run")
    with pytest.raises(FitError, match=r"\.c\.resume\.pt: damaged; remove it"):
        run(tmp_path / "c")


def test_a_flipped_bit_of_a_resume_file_is_found(tmp_path: Path) -> None:
    state = tmp_path / ".c.resume.pt"

    def stop(what: str, done: int, total: int) -> None:
        if state.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_with(RECIPE, tmp_path / "c", stop)
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(FitError, match=r"\.c\.resume\.pt: damaged; remove it"):
        run(tmp_path / "c")


def test_other_data_of_the_same_size_are_not_gone_on_with() -> None:
    assert small_rows(300, seed=2).digest == small_rows(300, seed=2).digest
    assert small_rows(300, seed=2).digest != small_rows(300, seed=3).digest


@pytest.mark.parametrize("differs", ["history", "context", "item"])
def test_a_stopped_run_of_other_histories_or_features_is_refused(
    tmp_path: Path, differs: str
) -> None:
    state = tmp_path / ".c.resume.pt"

    def stop(what: str, done: int, total: int) -> None:
        if state.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_with(RECIPE, tmp_path / "c", stop)
    train, valid = small_rows(1000, seed=1), small_rows(300, seed=2)
    if differs == "history":
        valid.history[5, -1] = 1 + valid.history[5, -1] % 30
    elif differs == "context":
        train.context[5, 1] = 1 + train.context[5, 1] % 10
    else:
        train.items.rows["item_emb_d128"][7, 0] += 1
    with process_group() as group, pytest.raises(FitError, match="another data was stopped here"):
        fit(train, valid, RECIPE, tmp_path / "c", group)


def fit_with(recipe: Recipe, out: Path, on_progress) -> None:  # type: ignore[no-untyped-def]
    with process_group() as group:
        fit(small_rows(1000, seed=1), small_rows(300, seed=2), recipe, out, group, on_progress)


def test_the_regulariser_covers_every_embedding_table_and_the_content_projection() -> None:
    network = QIN(SMALL, SIZES)
    named = {id(p): name for name, p in network.named_parameters()}
    assert sorted(named[id(p)] for p in regularised(network)) == [
        "context.likes_level.weight",
        "context.views_level.weight",
        "item_vector.embedding.item_emb_d128.weight",
        "item_vector.embedding.item_id.weight",
        "item_vector.embedding.item_tags.weight",
    ]


def test_padding_rows_stay_zero_through_training(tmp_path: Path) -> None:
    run(tmp_path / "c", RECIPE.model_copy(update={"epochs": 2}))
    for name, tensor in weights(tmp_path / "c").items():
        if ("embedding.item_" in name and "d128" not in name) or name.startswith("context"):
            assert not tensor[0].any(), name


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    two_processes.launch(folder)
    return folder


@pytest.mark.parametrize("file", [two_processes.ITEMS_ALONE, two_processes.WITH_USERS])
def test_two_processes_find_the_gradients_of_one(tmp_path: Path, by_two: Path, file: str) -> None:
    """Uneven shares included: batch norm and the mean are those of the whole batch."""
    one_step(tmp_path / file, users=file == two_processes.WITH_USERS)
    one, two = (load_file(folder / file) for folder in (tmp_path, by_two))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=1e-6, msg=name)


def test_two_processes_train_to_the_same_result_as_one(tmp_path: Path, by_two: Path) -> None:
    """Within what Adam makes of rounding: it divides small gradients by their own size."""
    folders = [folder / two_processes.CHECKPOINT for folder in (tmp_path, by_two)]
    run(folders[0], with_dropout(0.0))
    rows = small_rows(300, seed=2)
    one, two = (predict(checkpoint.load(folder), rows) for folder in folders)
    np.testing.assert_allclose(two, one, atol=3e-2)
    loss = [checkpoint.read_metrics(folder)["epochs"][1]["train_loss"] for folder in folders]
    assert loss[1] == pytest.approx(loss[0], rel=1e-3), "of the rows of both"
    assert auc(two, rows.label) == pytest.approx(auc(one, rows.label), abs=5e-3)
