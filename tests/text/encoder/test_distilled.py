"""Distillation: the teacher's similarities are learnt, its vectors encoded once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from tests.text.encoder.test_fit import small
from text.__main__ import app
from text.corpus.corpus import Corpus
from text.encoder import checkpoint
from text.encoder.distilled import CachedTeacher
from text.encoder.fit import fit
from text.encoder.run import RunError
from text.encoder.vectors import TorchEncoder

LETTERS = "abcdefghijklmnopqrstuvwxyzäöüß"
ALONE = ("masked.steps=0", "pairs.steps=0", "multi_task.steps=0")


class Letters:
    """A teacher of other width than the encoder: counts of letters."""

    name = "letters"

    def __init__(self) -> None:
        self.encoded = 0

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32] | None:
        self.encoded += len(texts)
        counts = [[text.lower().count(letter) for letter in LETTERS] for text in texts]
        return np.asarray(counts, np.float32)


def agreement(folder: Path, corpus: Corpus) -> float:
    """Correlation of the encoder's and the teacher's cosines of all pairs of held-out texts."""
    texts = corpus.texts(split="test")["text"].to_pylist()
    teacher = Letters().vectors(texts)
    assert teacher is not None
    units = teacher / np.linalg.norm(teacher, axis=1, keepdims=True)
    own = TorchEncoder.of(checkpoint.load(folder)).encode(texts)
    above = np.triu_indices(len(texts), 1)
    return float(np.corrcoef((own @ own.T)[above], (units @ units.T)[above])[0, 1])


def test_similarities_of_held_out_texts_become_the_teachers(tiny: Corpus, tmp_path: Path) -> None:
    fit(tiny, small(*ALONE), tmp_path / "untrained")
    recipe = small(*ALONE, "distilled.steps=15", "distilled.learning_rate=0.005")
    training = fit(tiny, recipe, tmp_path / "distilled", teacher=Letters())
    assert training["stages"] == ["distilled"]
    assert training["teacher"] == "letters"
    before, after = (agreement(tmp_path / name, tiny) for name in ("untrained", "distilled"))
    assert after > before + 0.2


def test_a_teachers_vectors_are_encoded_once(tmp_path: Path) -> None:
    teacher, texts = Letters(), ["a text", "another text"]
    first = CachedTeacher("letters 1", teacher, tmp_path).vectors(texts)
    again = CachedTeacher("letters 1", teacher, tmp_path).vectors(texts)
    assert (first == again).all()
    assert teacher.encoded == 2
    CachedTeacher("letters 2", teacher, tmp_path).vectors(texts)
    CachedTeacher("letters 1", teacher, tmp_path).vectors(texts[:1])
    assert teacher.encoded == 5


@pytest.mark.parametrize("content", [b"", b"PK", b"\x93NUMPY\x01\x00"])
def test_damaged_vectors_of_a_teacher_are_named(tmp_path: Path, content: bytes) -> None:
    cached = CachedTeacher("letters 1", Letters(), tmp_path)
    cached.vectors(["a text"])
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    with pytest.raises(RunError, match=rf"{file.name}: damaged; delete it to encode again"):
        cached.vectors(["a text"])


def test_a_teacher_without_steps_and_steps_without_a_teacher_are_refused(
    tiny: Corpus, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"teacher letters: no steps; give --set distilled\.steps=N"):
        fit(tiny, small(), tmp_path / "out", teacher=Letters())
    with pytest.raises(RunError, match="without a teacher; give --teacher NAME"):
        fit(tiny, small("distilled.steps=5"), tmp_path / "out")


def test_fit_learns_from_an_encoder_of_another_width(tiny: Corpus, tmp_path: Path) -> None:
    fit(tiny, small(*ALONE, "sizes.hidden=8"), tmp_path / "teacher")
    settings = [f"--set={name}" for name in (*ALONE, "sizes.hidden=16", "sizes.intermediate=16")]
    options = ["--preset=tiny", "--set=distilled.steps=2", f"--teacher={tmp_path / 'teacher'}"]
    command = ["fit", str(tiny.folder), f"--out={tmp_path / 'out'}", *options, *settings]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "sizes:" in result.stderr.splitlines()  # of the recipe
    training = checkpoint.load(tmp_path / "out").training
    assert training["stages"] == ["distilled"]
    assert training["teacher"].startswith("teacher ")
    assert len(list((tmp_path / "teachers").glob("*.npy"))) == 1
