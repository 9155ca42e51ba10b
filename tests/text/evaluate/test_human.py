"""Human judgements in the files of gensim, here with three texts and three pairs of words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from text.corpus.errors import CorpusError
from text.evaluate.encoders import Cosine, Vectors
from text.evaluate.human import evaluate, read

FILES = {
    "wordsim353.tsv": "# The Collection\n# Word 1\tWord 2\na\tab\t9.1\na\tb\t0.5\nab\tb\t7\n",
    "simlex999.txt": "# Word 1\tWord 2\tHuman\na\tab\t0.1\na\tb\t9.5\nab\tb\t0.2\n",
    "lee.cor": "a caf\xe9 a\na b\nb b\n",
    "similarities0-1.txt": "1\t0.7\t0.2\n0\t1\t0.5\n0\t0\t1\n",
}


class Letters:
    """Unit vectors of the counts of a and b."""

    def encode(self, texts: Sequence[str]) -> Vectors:
        counts = np.asarray([[text.count("a"), text.count("b")] for text in texts], np.float32)
        units: Vectors = counts / np.linalg.norm(counts, axis=1, keepdims=True)
        return units


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    return tmp_path


def test_every_pair_is_compared_with_its_judgement(folder: Path) -> None:
    assert read(folder)["lee"] == [
        ("a caf\xe9 a", "a b", 0.7),
        ("a caf\xe9 a", "b b", 0.2),
        ("a b", "b b", 0.5),
    ]
    found = {result.task: result for result in evaluate(Cosine("letters", Letters()), read(folder))}
    assert {task: result.items for task, result in found.items()} == {
        "wordsim-353": 3,
        "simlex-999": 3,
        "lee": 3,
    }
    assert found["wordsim-353"].value > 0.8
    assert found["simlex-999"].value < -0.8
    assert found["lee"].value == pytest.approx(0.8660254)  # two cosines are equal


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("simlex999.txt", "old\tnew\n", "simlex999.txt, line 1: not WORD, WORD, SCORE"),
        ("similarities0-1.txt", "1\t0.7\n0\t1\n", "numbers for 3 texts of lee.cor"),
        ("lee.cor", None, "lee.cor: No such file or directory; gensim/test/test_data has it"),
    ],
)
def test_a_missing_or_broken_file_is_named(
    folder: Path, name: str, content: str | None, said: str
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(CorpusError, match=said):
        read(folder)
