"""The search over recipes: its space, resuming, pruning, bounds, and what it writes."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import programs
from tests.training.test_cli import in_process
from tests.training.tuning import BASE, SPACE, run, search
from tests.training.worlds import SMALL, small_rows
from training.recipe import Recipe, get
from training.recipe_files import RecipeError, resolve
from training.tuning.search_space import Choice, Range, SearchError, SearchSpace
from training.tuning.study import JOURNAL, ask, opened
from training.tuning.trials_table import TrialRow
from training.tuning.tune import report, tune

pytestmark = pytest.mark.usefixtures("one_picture")


def space_of(text: str, folder: Path, base: Recipe | None = None) -> SearchSpace:
    (folder / "space.yaml").write_text(text)
    return SearchSpace.read(folder / "space.yaml", base or Recipe())


def test_a_space_has_ranges_and_choices_with_the_recipe_s_types(tmp_path: Path) -> None:
    space = space_of(
        "learning_rate: {kind: float, low: 1e-4, high: 1e-2, log: true}\n"
        "sizes.rows: {kind: int, low: 2, high: 4}\n"
        "sizes.output_bias: {kind: choice, values: [true, false]}\n"
        "adam.epsilon: {kind: choice, values: [1e-8, 1e-7]}\n",
        tmp_path,
    )
    assert space.dimensions == {
        "learning_rate": Range(kind="float", low=1e-4, high=1e-2, log=True),
        "sizes.rows": Range(kind="int", low=2, high=4),
        "sizes.output_bias": Choice(kind="choice", values=[True, False]),
        "adam.epsilon": Choice(kind="choice", values=[1e-8, 1e-7]),
    }


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("sizes.rowz: {kind: int, low: 1, high: 2}", "sizes.rowz: 1: unknown name; the nearest is"),
        ("sizes.rows: {kind: int, low: 0, high: 2}", "sizes.rows: 0: must be at least 1"),
        ("sizes.rows: {kind: int, low: 1, high: 99}", "sizes.rows: 99: must be at most 64"),
        ("sizes.rows: {kind: int, low: 3, high: 2}", "sizes.rows: low 3 is not below high 2"),
        ("sizes.rows: {kind: int, low: 1.5, high: 2}", "sizes.rows: low and high of kind int are"),
        ("sizes.rows: {kind: float, low: 1, high: 2}", "sizes.rows: a whole number: use kind: int"),
        ("sizes.rows: {kind: float, low: 1}", "sizes.rows: high: missing"),
        ("sizes.rows: {kind: float, low: 1, high: x}", "sizes.rows: high: not a number"),
        ("sizes.rows: {kind: int, low: 1, high: 2, step: 1}", "sizes.rows: step: unknown name"),
        ("sizes.rows: {low: 1, high: 2}", "sizes.rows: kind must be float, int or choice"),
        ("sizes.rows: {kind: grid}", "sizes.rows: kind must be float, int or choice"),
        ("sizes.rows: 3", "sizes.rows: not a mapping"),
        ("sizes.rows: {kind: choice, values: [3]}", "sizes.rows: values holds fewer than two"),
        ("sizes.rows: {kind: choice, values: [3, x]}", "sizes.rows: x: not an integer"),
        ("seed: {kind: choice, values: [1, 2]}\nseed: {kind: int, low: 1, high: 2}", "seed: given"),
        (
            "sizes.output_bias: {kind: int, low: 0, high: 1}",
            "sizes.output_bias: true or false: use",
        ),
        ("gradient_clip: {kind: float, low: 0, high: 1, log: true}", "gradient_clip: log: low 0"),
        ("user_min_count: {kind: int, low: 1, high: 9}", "user_min_count: cannot vary"),
        ("- seed", "not a mapping"),
        ("", "not a mapping"),
        ("seed: {", "not YAML"),
    ],
)
def test_a_space_that_cannot_be_is_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises((SearchError, RecipeError)) as refused:
        space_of(text, tmp_path)
    assert str(refused.value).startswith(f"{tmp_path / 'space.yaml'}: {complaint}")
    assert "\n" not in str(refused.value)


def test_a_space_without_a_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"none\.yaml: No such file"):
        SearchSpace.read(tmp_path / "none.yaml", Recipe())


def drawn(rows: list[TrialRow]) -> list[tuple[object, ...]]:
    return [(r.number, r.state, r.valid_auc, r.best_epoch, r.epochs, r.numbers) for r in rows]


def test_a_trial_that_was_killed_while_it_was_drawn_is_drawn_again(tmp_path: Path) -> None:
    """The numbers that it had would leave the others to draws that a whole search did not make."""
    distributions = SPACE.distributions()
    with opened(tmp_path / "whole", {}) as study:
        whole = ask(study, distributions, 3).params
    with opened(tmp_path / "killed", {}) as study:
        ask(study, {"learning_rate": distributions["learning_rate"]}, 3)
        journal = tmp_path / "killed" / JOURNAL
        lines = journal.read_bytes().splitlines(keepends=True)
        last = max(n for n, line in enumerate(lines) if b"learning_rate" in line)
    journal.write_bytes(b"".join(lines[: last + 1]))
    with opened(tmp_path / "killed", {}) as study:
        assert ask(study, distributions, 3).params == whole


def test_a_search_killed_in_the_middle_ends_with_the_trials_of_a_whole_one(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 5)
    words = (str(tmp_path / "killed"), "5")
    for stop in (signal.SIGKILL, signal.SIGINT):
        before = epochs_reported(tmp_path / "killed")
        with programs.running("tests.training.tuning", *words) as process:
            deadline = time.monotonic() + 120
            while epochs_reported(tmp_path / "killed") < before + 3:
                assert process.is_alive(), "it ended before it could be stopped"
                assert time.monotonic() < deadline
                time.sleep(0.02)
            programs.send(process, stop)
            process.join()
    with (tmp_path / "killed" / JOURNAL).open("a") as journal:
        journal.write('{"op_code": 4, "cut')  # by a kill
    assert drawn(run(tmp_path / "killed", 5)) == drawn(whole)
    assert {row.state for row in whole} >= {"complete"}
    assert not (tmp_path / "killed" / "trials").exists()


def epochs_reported(folder: Path) -> int:
    journal = folder / JOURNAL
    return journal.read_text().count('"intermediate_value"') if journal.exists() else 0


def test_an_interrupted_trial_goes_on_after_its_last_epoch(tmp_path: Path) -> None:
    epochs: list[int] = []

    def stop(what: str, done: int, total: int) -> None:
        epochs.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(search(), tmp_path, 1, on_progress=stop)
    del epochs[:]
    rows = tune(search(), tmp_path, 1, on_progress=lambda what, done, total: epochs.append(done))
    assert epochs == [0, 3]
    assert [row.epochs for row in rows] == [3]


def test_more_trials_go_on_with_the_study_and_as_many_train_nothing(tmp_path: Path) -> None:
    first = run(tmp_path, 2)
    assert drawn(run(tmp_path, 3)[:2]) == drawn(first)
    steps: list[str] = []
    tune(search(), tmp_path, 3, on_progress=lambda what, done, total: steps.append(what))
    assert steps == []


def test_a_time_that_is_over_ends_at_an_epoch_and_the_next_call_goes_on(tmp_path: Path) -> None:
    def slow(what: str, done: int, total: int) -> None:
        time.sleep(0.02 if done else 0)

    ended = [len(tune(search(), tmp_path, 2, timeout=0.01, on_progress=slow)) for _ in range(6)]
    assert ended == [0, 0, 1, 1, 1, 2]
    assert len(tune(search(), tmp_path, 3, timeout=0)) == 2
    rows = tune(search(), tmp_path, 2)
    assert drawn(rows) == drawn(run(tmp_path / "whole", 2))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"space": SearchSpace({"seed": Range(kind="int", low=1, high=9)})}, "space is here; "),
        ({"valid": small_rows(200, seed=3)}, "data is here; "),
        ({"base": BASE.model_copy(update={"epochs": 2})}, r"recipe is here \(epochs 3, not 2\); "),
    ],
)
def test_a_study_of_something_else_is_refused_by_name(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    run(tmp_path, 1)
    with pytest.raises(SearchError, match=f"a study with another {named}.*another --out"):
        tune(search(**changes), tmp_path, 2)


@pytest.mark.parametrize("seed", [BASE.seed, BASE.seed + 1])
def test_a_study_goes_on_with_other_base_values_of_drawn_numbers(tmp_path: Path, seed: int) -> None:
    run(tmp_path / "study", 1)  # keeps the whole base recipe, as earlier releases did
    sizes = BASE.sizes.model_copy(update={"rows": 7})
    base = BASE.model_copy(update={"learning_rate": 0.5, "sizes": sizes, "seed": seed})
    if seed == BASE.seed:
        rows = tune(search(base=base), tmp_path / "study", 2)
        assert drawn(rows) == drawn(run(tmp_path / "whole", 2))
        assert report(search(), tmp_path / "study")
    else:
        with pytest.raises(SearchError, match=rf"recipe is here \(seed {BASE.seed}, not {seed}\)"):
            tune(search(base=base), tmp_path / "study", 2)


def test_a_drawn_seed_is_a_part_of_the_study(tmp_path: Path) -> None:
    space = SearchSpace({"seed": Range(kind="int", low=1, high=9)})
    tune(search(space=space), tmp_path, 1)
    base = BASE.model_copy(update={"seed": BASE.seed + 1})
    with pytest.raises(SearchError, match="another recipe is here"):
        tune(search(space=space, base=base), tmp_path, 2)


def test_another_schema_is_refused_by_name(tmp_path: Path) -> None:
    study = search()
    with opened(tmp_path, study.identity):
        pass
    with (
        pytest.raises(SearchError, match="another schema"),
        opened(tmp_path, study.identity | {"schema": SMALL.to_yaml()}),
    ):
        pass


def test_two_processes_do_not_work_on_one_study(tmp_path: Path) -> None:
    with (
        opened(tmp_path, {}),
        pytest.raises(SearchError, match="another process works on this study"),
        opened(tmp_path, {}),
    ):
        pass


def test_hopeless_trials_end_at_their_second_epoch(tmp_path: Path) -> None:
    space = SearchSpace({"learning_rate": Range(kind="float", low=1e-9, high=1e-1, log=True)})
    rows = tune(search(space=space), tmp_path / "pruned", 9)
    pruned = [row for row in rows if row.state == "pruned"]
    assert pruned
    assert {row.epochs for row in pruned} == {2}
    assert all(row.number > 5 for row in pruned)
    rows = tune(search(space=space, prune=False), tmp_path / "whole", 7)
    assert {row.state for row in rows} == {"complete"}


def test_the_same_numbers_again_are_not_trained_again(tmp_path: Path) -> None:
    space = SearchSpace({"sizes.rows": Range(kind="int", low=1, high=2)})
    rows = tune(search(space=space), tmp_path, 6)
    by_number: dict[int, set[tuple[object, ...]]] = {}
    for row in rows:
        ended = (row.state, row.valid_auc, row.best_epoch, row.epochs)
        by_number.setdefault(row.numbers["sizes.rows"], set()).add(ended)
    assert [len(ends) for ends in by_number.values()] == [1, 1]
    assert sum(row.seconds > 0 for row in rows) == 2


def test_a_diverging_trial_is_one_row_and_the_search_goes_on(tmp_path: Path) -> None:
    space = SearchSpace(
        {"initial.linear_gain": Choice(kind="choice", values=[100.0, 1.0])},
    )
    base = BASE.model_copy(update={"learning_rate": 10.0})
    rows = tune(search(space=space, base=base), tmp_path, 6)
    assert len(rows) == 6
    assert "diverged" in {row.state for row in rows}


def test_what_is_written_agrees_with_what_is_returned(tmp_path: Path) -> None:
    run(tmp_path, 4)
    rows = report(search(), tmp_path)
    table = list(csv.DictReader((tmp_path / "trials.csv").read_text().splitlines()))
    assert [int(line["trial"]) for line in table] == [1, 2, 3, 4]
    for row, line in zip(rows, table, strict=True):
        assert float(line["valid_auc"]) == row.valid_auc
        assert float(line["learning_rate"]) == row.numbers["learning_rate"]
        assert line["best"] == str(row.best)
    (best,) = (row for row in rows if row.best)
    assert best.valid_auc == max(r.valid_auc or 0 for r in rows if r.state == "complete")
    recipe = resolve(file=tmp_path / "best.yaml")
    for name in SPACE.dimensions:
        assert get(recipe, name) == best.numbers[name]
    assert recipe.epochs == BASE.epochs
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


def test_the_commands_search_and_train_the_best_recipe(tmp_path: Path) -> None:
    sizes = ("--train", "2000", "--valid", "400", "--test", "40", "--items", "100")
    made = in_process("synthesize", str(tmp_path / "data"), *sizes, "--history", "8")
    assert made.exit_code == 0, made.output
    (tmp_path / "space.yaml").write_text("learning_rate: {kind: float, low: 1e-3, high: 1e-1}\n")
    words = ("tune", str(tmp_path / "data"), "--space", str(tmp_path / "space.yaml"))
    words = (*words, "--out", str(tmp_path / "study"), "--preset", "demo", "--set", "epochs=2")
    shown = in_process(*words, "--trials", "2", "--threads", "1")
    assert shown.exit_code == 0, shown.output
    assert "← best" in shown.stderr
    assert re.search(r"^learning_rate: drawn +#", shown.stderr, re.MULTILINE)
    other_base = ("--set", "learning_rate=1e-2")  # is drawn
    again = in_process(*words, "--trials", "3", "--threads", "1", "--json", *other_base)
    assert again.exit_code == 0, again.output
    content = json.loads(again.stdout)
    assert [row["number"] for row in content["trials"]] == [1, 2, 3]
    best = tmp_path / "study" / "best.yaml"
    fit = ("fit", str(tmp_path / "data"), "--recipe", str(best), "--threads", "1", "--json")
    fitted = in_process(*fit, "--out", str(tmp_path / "c"))
    assert fitted.exit_code == 0, fitted.output
    assert json.loads(fitted.stdout)["valid_auc"] == content["best"]["valid_auc"]
    other = in_process(*words, "--trials", "3", "--set", "epochs=1")
    assert other.exit_code == 1
    assert "a study with another recipe is here (epochs 2, not 1); " in other.stderr
    assert "learning_rate" not in other.stderr

    long = ("--out", str(tmp_path / "long"), "--set", "epochs=1000")
    words = (*words, *long, "--set", "patience=1000")
    with programs.running("training", *words, err=tmp_path / "err") as stopped:
        deadline = time.monotonic() + 120
        while not epochs_reported(tmp_path / "long"):
            assert stopped.is_alive(), "it ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        programs.send(stopped, signal.SIGINT)
        stopped.join(60)
        told = (tmp_path / "err").read_text()
        assert stopped.exitcode == 130, told
    assert "0 of 20 trials; the same command goes on" in told
    assert "Traceback" not in told


def test_without_the_extra_tune_is_refused_in_one_line(tmp_path: Path) -> None:
    code = "import sys; sys.modules['optuna'] = None\nfrom training.__main__ import app; app()"
    words = ("tune", str(tmp_path), "--space", "space.yaml", "--out", str(tmp_path / "c"))
    command = [sys.executable, "-c", code, *words]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    told = (
        "error: tune: requires the extra tune: `make setup` in a clone, elsewhere "
        "pip install -c constraints.txt 'qin-serving[tune]'"
    )
    assert refused.stderr.splitlines() == [told]


@pytest.mark.parametrize(
    "line",
    [b"garbage", b"\0\0\0\0", b"\xff\xfe", b"", b"[]", b"{}", b'{"op_code": 99}', b"[" * 100_000],
)
def test_a_damaged_journal_is_refused_by_name(line: bytes, tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(line + b"\n")
    with (
        pytest.raises(SearchError, match=rf"^{tmp_path / JOURNAL}: damaged; .* another --out$"),
        opened(tmp_path, {}),
    ):
        pass


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "{a: " * 3_000, "epochs: !!int x", "epochs: 2020-99-99"]
)
def test_a_space_that_the_yaml_library_fails_on_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"space\.yaml: not YAML: "):
        space_of(text, tmp_path)


@pytest.mark.parametrize("text", ["[" * 20_000, "{a: " * 3_000])
@pytest.mark.parametrize("name", ["recipe.yaml", "metrics.json"])
def test_a_recipe_nested_too_deeply_is_refused(text: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RecipeError, match=re.escape(f"{tmp_path / name}: ")):
        resolve(file=tmp_path / name)
