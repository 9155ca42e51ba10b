"""An ablation on the tiny corpus: resuming, refusals, the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner

from tests.text.rewritten import rewrite
from text.__main__ import app
from text.ablate.claims import CLAIMS as KNOWN
from text.ablate.experiment import CHECKPOINTS, Experiment
from text.ablate.items import Items
from text.ablate.recipe import RECIPES
from text.ablate.run import Outcome, run
from text.cli.ablate import NAMES
from text.corpus.corpus import Corpus
from text.encoder import checkpoint
from text.encoder.run import RunError
from training.progress import OnProgress, no_progress

CLAIMS = ["similarity", "bilingual", "length"]
SHORT = [
    "encoder.masked.steps=3",
    "encoder.pairs.steps=3",
    "encoder.multi_task.steps=2",
    "length.masked.steps=3",
]
TRAINED = (": masked", ": pairs", ": multi_task")


class StoppedError(Exception):
    """Stands for a stop: of the ablation, its files alone are left."""


def experiment(
    corpus: Corpus,
    out: Path,
    on_progress: OnProgress = no_progress,
    settings: Sequence[str] = (),
    six: Corpus | None = None,
) -> Experiment:
    recipe = RECIPES.resolve("tiny", settings=[*SHORT, *settings])
    return Experiment(corpus, recipe, out, six, on_progress=on_progress)


@dataclass(frozen=True)
class Done:
    """A complete ablation with one seed."""

    out: Path
    six: Corpus
    outcomes: list[Outcome]
    steps: list[str]


@pytest.fixture(scope="module")
def done(tiny: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("ablation")
    six = more(tiny, folder / "six")
    steps: list[str] = []
    whole = experiment(
        tiny, folder / "out", lambda step, *_: steps.append(step), six=more(tiny, folder / "six")
    )
    return Done(whole.out, six, run(whole, CLAIMS, 1), steps)


def more(corpus: Corpus, path: Path) -> Corpus:
    """A corpus of other content, in place of one of six languages."""
    if not path.exists():
        shutil.copytree(corpus.folder, path)
        about = orjson.loads((path / "corpus.json").read_bytes())
        about["languages"] = ["de", "en"]
        (path / "corpus.json").write_bytes(orjson.dumps(about))
        rewrite(path, "texts", corpus.texts().slice(1))
    return Corpus.open(path)


def figures(outcomes: Sequence[Outcome], claims: Sequence[str]) -> dict[tuple[str, ...], object]:
    return {
        (each.claim, each.arm, str(each.seed)): each.figures
        for outcome in outcomes
        for each in outcome.results
        if each.claim in claims
    }


def test_a_stopped_ablation_does_what_is_missing_and_ends_with_the_same_figures(
    tiny: Corpus, tmp_path: Path, done: Done
) -> None:
    claims = ["similarity", "length"]
    steps: list[str] = []
    for stop in ("similarity-squared-1: multi_task", "learnt-1: masked"):

        def on_progress(step: str, number: int, total: int, stop: str = stop) -> None:
            steps.append(step)
            if (step, number) == (stop, 1):
                raise StoppedError

        with pytest.raises(StoppedError):
            run(experiment(tiny, tmp_path, on_progress), claims, 1)
    found = run(experiment(tiny, tmp_path, lambda step, *_: steps.append(step)), claims, 1)
    assert figures(found, claims) == figures(done.outcomes, claims)
    trained = [step for step in steps if step.endswith(TRAINED)]
    once = [step for step in done.steps if step.endswith(TRAINED) and "de-en" not in step]
    assert len(trained) == len(once) + 2, "steps done twice beyond the two that were not saved"


def test_the_arm_without_a_similarity_loss_has_the_steps_of_retrieval_alone(done: Done) -> None:
    steps = {
        arm: checkpoint.load(done.out / CHECKPOINTS / f"similarity-{arm}-1").training["recipe"][
            "multi_task"
        ]["steps"]
        for arm in ("pearson", "squared", "none")
    }
    assert steps == {"pearson": 2, "squared": 2, "none": 1}


@pytest.mark.parametrize("setting", ["encoder.pairs.steps=4", "length.texts=2"])
def test_results_of_another_recipe_are_refused(tiny: Corpus, done: Done, setting: str) -> None:
    with pytest.raises(RunError, match="a result of another recipe; give those of that run"):
        run(experiment(tiny, done.out, settings=[setting]), ["length"], 1)


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "{}", '{"identity": 1, "origin": 2, "figures": {}, "seconds": 1}']
)
def test_a_damaged_result_is_named_with_the_remedy(
    tiny: Corpus, tmp_path: Path, done: Done, damage: str
) -> None:
    out = shutil.copytree(done.out, tmp_path / "out")
    result = out / "results" / "length-alibi-1.json"
    result.write_text(damage)
    with pytest.raises(RunError, match=r"length-alibi-1\.json: not a result; delete it to measure"):
        run(experiment(tiny, out), ["length"], 1)


def test_numbers_of_the_claim_on_length_are_not_those_of_the_others(
    tiny: Corpus, done: Done
) -> None:
    steps: list[str] = []
    other = experiment(
        tiny, done.out, lambda step, *_: steps.append(step), ["length.texts=2"], done.six
    )
    found = run(other, ["similarity", "bilingual"], 1)
    assert figures(found, CLAIMS) == figures(done.outcomes, ["similarity", "bilingual"])
    assert not [step for step in steps if step.endswith(TRAINED)]


def test_results_of_another_corpus_are_refused(tiny: Corpus, done: Done) -> None:
    with pytest.raises(RunError, match="a result of another corpus"):
        run(experiment(done.six, done.out), ["length"], 1)
    with pytest.raises(RunError, match="a result of another six"):
        run(experiment(tiny, done.out, six=tiny), ["bilingual"], 1)


def test_checkpoints_of_another_recipe_are_refused(tiny: Corpus, done: Done) -> None:
    other = experiment(tiny, done.out, settings=["encoder.masked.share=0.2"])
    with pytest.raises(RunError, match=r"en-de-masked-1: of another recipe; give another --out"):
        other.backbone(tiny, 1)


def test_a_start_is_after_stage_two_and_before_stage_three(
    tiny: Corpus, tmp_path: Path, done: Done
) -> None:
    recipe = RECIPES.resolve("tiny", settings=SHORT)
    for name, stages in (
        ("en-de-masked-1", "masked"),
        ("similarity-none-1", "masked, pairs, multi_task"),
    ):
        given = Experiment(tiny, recipe, tmp_path, start=done.out / "checkpoints" / name)
        with pytest.raises(RunError, match=rf"has the stages {stages}; .* multi_task\.steps=0"):
            run(given, ["similarity"], 1)
    start = done.out / "checkpoints" / "en-de-pairs-1"
    assert Experiment(tiny, recipe, tmp_path, start=start).shared == start


def test_every_arm_has_the_same_packages_and_the_relevant_documents(tiny: Corpus) -> None:
    items = Items(tiny.folder, tiny.about, most_graded=7, most_queries=3, most_documents=8)
    graded = items.graded(split="test")
    scores = {
        langs: graded.filter(
            [a == langs[0] and b == langs[1] for a, b in zip(*columns, strict=True)]
        )["score"].to_pylist()
        for columns in [(graded["lang_a"].to_pylist(), graded["lang_b"].to_pylist())]
        for langs in zip(*columns, strict=True)
    }
    assert {len(own) for own in scores.values()} == {7}
    assert len({tuple(own) for own in scores.values()}) == 1
    found = items.retrieval("questions", "en")
    relevant = {id_ for ids in found.queries["relevant"].to_pylist() for id_ in ids}
    assert (len(found.queries), len(found.documents)) == (3, 8)
    assert relevant <= set(found.documents["id"].to_pylist())


def test_the_command_prints_verdicts_as_json_and_writes_the_report(
    tiny: Corpus, done: Done, tmp_path: Path
) -> None:
    settings = [part for setting in SHORT for part in ("--set", setting)]
    arguments = ["ablate", str(tiny.folder), "--seeds", "1", "--preset", "tiny", *settings]
    given = [*arguments, "--out", str(done.out), "--six", str(done.six.folder), "--json"]
    ended = CliRunner().invoke(app, given)
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    page = (done.out / "ablation.md").read_text()
    assert [claim["claim"] for claim in found["claims"]] == list(NAMES) == list(KNOWN)
    for claim, outcome in zip(found["claims"], done.outcomes, strict=True):
        assert claim["verdict"].startswith("holds" if claim["holds"] else "does not hold")
        assert f"The claim {claim['verdict']}." in page
        assert [each["figures"] for each in claim["results"]] == [
            each.figures for each in outcome.results
        ]
        assert (done.out / f"{claim['claim']}.png").read_bytes().startswith(b"\x89PNG")
    refused = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert refused.exit_code == 1
    assert "give --six" in refused.output
