"""The byte-level BPE: layout, cuts, words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from text.tokenizer import END, SPECIAL, START, TextTokenizer, TokenizerError

TEXTS = [
    f"{words} {number}"
    for number in range(40)
    for words in ("Der Hund läuft über die Straße", "The dog runs across the street", "El perro")
]


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer.train(TEXTS, 300)


@settings(max_examples=80, deadline=None)
@given(texts=st.lists(st.text(max_size=40), max_size=5), longest=st.integers(3, 20))
def test_a_cut_text_has_the_first_tokens_of_the_whole(
    tokenizer: TextTokenizer, texts: list[str], longest: int
) -> None:
    cut, whole = tokenizer.encode(texts, longest), tokenizer.encode(texts, 1000)
    assert len(cut) == len(texts)
    for row in range(len(texts)):
        own = cut.ids[cut.offsets[row] : cut.offsets[row + 1]].tolist()
        full = whole.ids[whole.offsets[row] : whole.offsets[row + 1]].tolist()
        assert own == [START, *full[1:-1][: longest - 2], END]


def test_special_tokens_have_the_published_ids(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    loaded = TextTokenizer.load(tmp_path)
    assert [loaded._tokenizer.token_to_id(token) for token in SPECIAL] == [0, 1, 2, 3, 4]
    mine, again = tokenizer.encode(TEXTS, 20), loaded.encode(TEXTS, 20)
    assert (mine.ids == again.ids).all()
    assert (mine.words == again.words).all()


def test_pieces_of_a_word_have_its_number(tokenizer: TextTokenizer) -> None:
    tokens = tokenizer.encode(["Hundehütte, nicht"], 100)
    words = tokens.words.tolist()
    assert words[0] == words[-1] == -1
    assert len(set(words[1:-1])) == 3  # Hundehütte · , · nicht
    assert np.count_nonzero(tokens.words == 0) > 1


def test_too_few_texts_for_the_vocabulary_are_named() -> None:
    with pytest.raises(TokenizerError, match=r"larger corpus or sizes\.vocabulary="):
        TextTokenizer.train(["a b"], 5000)


@pytest.mark.parametrize("content", [None, "{", '{"model": 1}', "[]"])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: ") as refused:
        TextTokenizer.load(tmp_path)
    assert "\n" not in str(refused.value)
