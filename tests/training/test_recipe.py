"""Recipes: where a number comes from, what is refused, and that each number has its effect."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
import torch

from tests.training.fitting import RECIPE, run
from training import checkpoint
from training.recipe import Recipe, fields, get
from training.recipe_files import RecipeError, preset, resolve, to_yaml

pytestmark = pytest.mark.usefixtures("one_picture")


@pytest.mark.parametrize("name", ["published", "demo"])
def test_a_preset_is_a_file_with_every_number_and_its_meaning(name: str) -> None:
    text = resources.files("training").joinpath(f"recipes/{name}.yaml").read_text("utf-8")
    comment, _, numbers = text.partition("\n")
    assert comment.startswith("# ")
    assert numbers == to_yaml(preset(name))


def test_the_published_preset_holds_the_defaults() -> None:
    assert preset("published") == Recipe()


def test_what_is_printed_is_read_as_the_same_recipe(tmp_path: Path) -> None:
    changes = ["sizes.rows=3", "sizes.output_bias=true", "learning_rate=1e-5", "adam.beta2=0.9"]
    recipe = resolve("demo", settings=changes)
    (tmp_path / "mine.yaml").write_text(to_yaml(recipe))
    assert resolve(file=tmp_path / "mine.yaml") == recipe


def test_later_sources_win(tmp_path: Path) -> None:
    """Preset, file, --set, options of their own: each replaces what is before it."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        "sizes: {rows: 5, layers: 3}\nadam.beta1: 8e-1\nepochs: 7\nbatch_size: 11\nseed: 1\n"
    )
    recipe = resolve(
        "demo", file, ["epochs=8", "batch_size=12", "batch_size=13"], {"epochs": 9, "seed": 2}
    )
    names = ("sizes.attention_width", "sizes.rows", "sizes.layers", "adam.beta1", "batch_size")
    assert [get(recipe, name) for name in names] == [64, 5, 3, 0.8, 13]
    assert (recipe.epochs, recipe.seed) == (9, 2)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("sizes.rowz=3", "unknown name; the nearest is sizes.rows"),
        ("rows=3", "unknown name; the nearest is sizes.rows"),
        ("learningrate=1", "unknown name; the nearest is learning_rate"),
        ("sizes.rows=three", "not an integer"),
        ("sizes.rows=2.5", "not an integer"),
        ("sizes.rows=true", "not an integer"),
        ("sizes.rows=", "not an integer"),
        ("sizes.rows=65", "must be at most 64"),
        ("sizes.output_bias=maybe", "neither true nor false"),
        ("learning_rate=fast", "not a number"),
        ("learning_rate=0", "must be above 0"),
        ("learning_rate=nan", "not finite"),
        ("gradient_clip=inf", "not finite"),
        ("adam.beta1=1", "must be below 1"),
        ("epochs=0", "must be at least 1"),
        ("adam=1", "adam is a group of adam.beta1, adam.beta2, adam.epsilon"),
        ("epochs", "must be NAME=VALUE, such as learning_rate=1e-3"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line_with_its_place(setting: str, complaint: str) -> None:
    with pytest.raises(RecipeError) as refused:
        resolve("demo", settings=[setting])
    assert str(refused.value) == f"--set {setting}: {complaint}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("epochs: 3\nsizes:\n  rowz: 3\n", "line 3: sizes.rowz: 3: unknown name; the nearest"),
        ("epochs: 3\nsizes:\n  rows: 0\n", "line 3: sizes.rows: 0: must be at least 1"),
        ("epochs: true", "line 1: epochs: true: not an integer"),
        ("epochs: 3\nepochs: 4", "line 2: epochs: given twice"),
        ("sizes.rows: 3\nsizes: {rows: 2}", "line 2: sizes.rows: given twice"),
        ("[epochs]: 3", "line 1: a name that is not text"),
        ("epochs: {a: 1}", "line 1: epochs: one number, not a group"),
        ("sizes: 3", "line 1: sizes: 3: sizes is a group of sizes.attention_width, "),
        ("epochs: [1, 2]", "line 1: epochs: a list, not a number"),
        ("a: &a {b: *a}", "line 1: a: unknown name"),
        ("- epochs", "not a mapping of names to numbers"),
        ("epochs: {", "not YAML: line 1, column 10: while parsing"),
    ],
)
def test_a_file_that_cannot_be_is_one_line_with_its_line(
    tmp_path: Path, text: str, complaint: str
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(RecipeError) as refused:
        resolve("demo", tmp_path / "mine.yaml")
    assert str(refused.value).startswith(f"{tmp_path / 'mine.yaml'}: {complaint}")
    assert "\n" not in str(refused.value)
    assert "pydantic" not in str(refused.value)


def test_files_without_a_recipe_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: No such file"):
        resolve(file=tmp_path / "none.yaml")
    (tmp_path / "metrics.json").write_text('{"auc": 1}')
    with pytest.raises(RecipeError, match=r"metrics\.json: holds no recipe"):
        resolve(file=tmp_path)
    (tmp_path / "metrics.json").write_text('{"recipe": {"epochs"')
    with pytest.raises(RecipeError, match=r"metrics\.json: not JSON: damaged; copy the folder"):
        resolve(file=tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff")
    with pytest.raises(RecipeError, match=r"bytes\.yaml: not UTF-8 text"):
        resolve(file=tmp_path / "bytes.yaml")
    (tmp_path / "empty.yaml").touch()
    assert resolve("demo", tmp_path / "empty.yaml") == preset("demo")


def test_a_checkpoint_of_an_earlier_release_has_the_numbers_of_its_time(tmp_path: Path) -> None:
    kept = {"sizes": {"attention_width": 8, "layers": 1, "rows": 2, "dropout": 0.0}, "epochs": 3}
    (tmp_path / "metrics.json").write_text(json.dumps({"recipe": kept}))
    recipe = resolve("demo", tmp_path)
    assert (recipe.sizes.attention_width, recipe.epochs) == (8, 3)
    assert recipe.adam == Recipe().adam


CHANGED = {
    "adam.beta1": 0.5,
    "adam.beta2": 0.5,
    "adam.epsilon": 1e-2,
    "initial.embedding_deviation": 1e-2,
    "initial.linear_gain": 0.5,
    "initial.prelu_slope": 0.5,
    "norm_momentum": 0.5,
    "smallest_batch": 110,
    "batch_size": 64,
    "embedding_regulariser": 0.1,
    "gradient_clip": 0.1,
    "learning_rate": 1e-3,
    "seed": 4,
    "sizes.dropout": 0.5,
}
OF_THE_SHAPE = {"sizes.attention_width", "sizes.layers", "sizes.rows", "sizes.output_bias"}
OF_LATER_EPOCHS = {"learning_rate_factor", "learning_rate_floor", "patience", "epochs"}
OF_USERS = {"user_min_count", "touched_rows_above"}  # see test_users.py, test_optimiser.py


def test_every_number_is_known_to_these_tests() -> None:
    groups = {"sizes", "adam", "initial"}
    names = {name for name, _, _ in fields(Recipe())} - groups
    assert names == CHANGED.keys() | OF_THE_SHAPE | OF_LATER_EPOCHS | OF_USERS


def weights(out: Path, *settings: str) -> dict[str, torch.Tensor]:
    file = out.with_suffix(".yaml")
    file.write_text(to_yaml(RECIPE))
    run(out, resolve(file=file, settings=["epochs=1", *settings]))
    return checkpoint.load(out).state_dict()


def test_every_number_of_a_step_changes_the_weights(tmp_path: Path) -> None:
    plain = weights(tmp_path / "plain")
    assert all(torch.equal(t, plain[n]) for n, t in weights(tmp_path / "again").items())
    for name, value in CHANGED.items():
        other = weights(tmp_path / name, f"{name}={value}")
        assert not all(torch.equal(t, plain[n]) for n, t in other.items()), name


def test_a_run_that_an_earlier_release_stopped_goes_on(tmp_path: Path) -> None:
    """Its recipe lacks numbers that were constants then."""
    state = tmp_path / ".c.resume.pt"
    run(tmp_path / "whole")

    def stop(what: str, done: int, total: int) -> None:
        if state.exists():
            raise KeyboardInterrupt

    from tests.training.test_fit import fit_with

    with pytest.raises(KeyboardInterrupt):
        fit_with(RECIPE, tmp_path / "c", stop)
    content = torch.load(state, weights_only=True)
    recipe = json.loads(content["identity"]["recipe"])
    for name in ("adam", "initial", "norm_momentum", "smallest_batch"):
        del recipe[name]
    content["identity"]["recipe"] = json.dumps(recipe)
    of_labels = content["identity"]["data"].split()[:2]  # those of histories and items are newer
    content["identity"]["data"] = " ".join(of_labels)
    torch.save(content, state)
    run(tmp_path / "c")
    whole = checkpoint.load(tmp_path / "whole").state_dict()
    for name, tensor in checkpoint.load(tmp_path / "c").state_dict().items():
        assert torch.equal(whole[name], tensor), name


def test_the_command_line_is_imported_without_torch() -> None:
    code = "import sys, training.__main__; print({'torch', 'optuna', 'pyarrow'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
