"""No bad model comes in: each is refused with a reason, and the old version goes on answering."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.lifecycle import hostile
from tests.service.lifecycle.conftest import Swapping, running, two_versions


@pytest.fixture(scope="module")
def swapping(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swapping]:
    world, networks = two_versions(tmp_path_factory.mktemp("hostile"))
    yield from running(world, networks, QIN_INSPECTION_S="3", QIN_INSPECTION_MEMORY_MB="2048")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (hostile.truncate, " bytes, and the manifest says "),
        (hostile.flip_a_bit, "ranker.weights: sha-256"),
        (hostile.lose_the_golden_file, "golden.npz: not found"),
        (hostile.lose_the_golden_file_from_the_manifest, "files: golden.npz not listed"),
        (hostile.change_a_golden_answer, "golden answers: "),
        (hostile.ask_no_golden_question, "golden.npz: probability: 0 golden answers"),
        (hostile.put_nan_into_the_weights, "golden answers: "),
        (hostile.rename_a_feature, "feature_schema: not the store's"),
        (hostile.use_another_graphs_inputs, "does not fit the manifest's schema"),
        (hostile.be_of_the_next_format, "and this release reads format"),
        (hostile.point_outside("../elsewhere.weights"), "ranker.onnx: onnxruntime"),
        (hostile.point_outside("HERE/elsewhere.weights"), "ranker.onnx: onnxruntime"),
        (hostile.be_a_symbolic_link, "ranker.weights: cannot be opened: a symbolic link"),
        (hostile.be_a_hard_link, "ranker.weights: a hard link"),
        (hostile.hold_a_named_pipe, "ranker.weights: not a plain file"),
        (hostile.hold_something_more, "notes.txt: not in the manifest"),
        (hostile.use_an_unknown_operator, "ranker.onnx: onnxruntime"),
        (hostile.ask_for_34_gb, "llocat"),
        (hostile.loop_for_ever, "more than 3 s (QIN_INSPECTION_S), or never end"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_it_is_refused_and_the_old_version_goes_on_answering(
    swapping: Swapping, damage: hostile.Damage, reason: str, request: pytest.FixtureRequest
) -> None:
    version = f"bad-{request.node.callspec.indices['damage']}"
    folder = hostile.copied(swapping.world.models / "small-2", version)
    damage(folder)
    refused = swapping.tell(f"{version}/activate")
    problem = refused.json()
    assert refused.status_code == 422, problem
    assert problem["type"] == "urn:qin:problem:model-refused"
    assert reason in problem["detail"]
    swapping.serves("small-1")
    listed = {m["version"]: m for m in swapping.admin.get("/admin/models").json()["models"]}
    assert listed[version]["state"] == "failed"
    assert reason in listed[version]["reason"]
    assert listed["small-1"]["state"] == "active"


def test_a_copy_consistent_in_itself_is_taken(swapping: Swapping) -> None:
    """So that what is refused above is refused for its damage alone."""
    hostile.copied(swapping.world.models / "small-2", "fine")
    assert swapping.tell("fine/load").json()["state"] == "ready"
    assert swapping.tell("fine/unload").json()["state"] == "unloaded"


def test_what_is_mended_is_taken_at_the_next_try(swapping: Swapping) -> None:
    folder = hostile.copied(swapping.world.models / "small-2", "mended")
    whole = (folder / "ranker.weights").read_bytes()
    hostile.truncate(folder)
    assert swapping.tell("mended/load").status_code == 422
    assert swapping.state("mended") == "failed"
    (folder / "ranker.weights").write_bytes(whole)
    listed = {m["version"]: m for m in swapping.admin.get("/admin/models").json()["models"]}
    assert (listed["mended"]["state"], listed["mended"]["reason"]) == ("available", None)
    assert swapping.tell("mended/load").json()["state"] == "ready"
    assert swapping.tell("mended/unload").json()["state"] == "unloaded"


def test_a_version_that_exists_with_other_content_is_refused(swapping: Swapping) -> None:
    folder = hostile.copied(swapping.world.models / "small-2", "twice")
    assert swapping.tell("twice/load").status_code == 200
    assert swapping.tell("twice/unload").status_code == 200
    hostile.change_manifest(folder, parameters=7)
    refused = swapping.tell("twice/load")
    assert refused.status_code == 422
    assert "version twice: exists with other content" in refused.json()["detail"]
    swapping.serves("small-1")


@pytest.mark.parametrize("name", ["nowhere", "..", "%2e%2e", "a%2fb", "http:%2f%2fevil", "x" * 65])
def test_only_the_name_of_a_version_is_taken(swapping: Swapping, name: str) -> None:
    refused = swapping.admin.post(f"/admin/models/{name}/load")
    assert refused.status_code in (404, 405, 422), refused.text
    swapping.serves("small-1")


def test_an_unknown_version_is_answered_by_what_there_is(swapping: Swapping) -> None:
    refused = swapping.tell("nowhere/activate")
    assert refused.status_code == 404
    assert {"small-1", "small-2"} <= set(refused.json()["available"])


def test_nothing_of_what_was_refused_is_left_in_the_private_place(swapping: Swapping) -> None:
    private = next(Path(swapping.service.private).glob("models-*"))
    assert list((private / "incoming").iterdir()) == []
    kept = {folder.name for digest in (private / "copies").iterdir() for folder in digest.iterdir()}
    assert "small-1" in kept
    assert not {name for name in kept if name.startswith("bad-0")}


def test_what_was_refused_leaves_the_list_with_its_folder(swapping: Swapping) -> None:
    folder = hostile.copied(swapping.world.models / "small-2", "removed")
    hostile.truncate(folder)
    assert swapping.tell("removed/load").status_code == 422
    assert swapping.state("removed") == "failed"
    shutil.rmtree(folder)
    assert swapping.tell("removed/load").status_code == 404
    listed = swapping.admin.get("/admin/models").json()["models"]
    assert "removed" not in {model["version"] for model in listed}
