"""The byte-level BPE: layout, cuts, words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Encoding, Tokenizer, models, normalizers, pre_tokenizers, processors

from text.tokenizer import END, FILE, PIECE, SPECIAL, START, TextTokenizer, TokenizerError

TEXTS = [
    f"{words} {number}"
    for number in range(40)
    for words in ("Der Hund läuft über die Straße", "The dog runs across the street", "El perro")
]


@pytest.fixture(scope="module", params=[False, True], ids=["case", "lowercase"])
def tokenizer(request: pytest.FixtureRequest) -> TextTokenizer:
    return TextTokenizer.train(TEXTS, 300, request.param)


def wordpiece() -> Tokenizer:
    """BERT's layout: [PAD] is 0, [CLS] and [SEP] are 2 and 3 here."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *"abcd", "##a", "##bc", "dab", "ö"]
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


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


@settings(max_examples=60, deadline=None)
@given(
    text=st.lists(st.text("der Hund\n1läuf🙂", max_size=300)).map("".join),
    longest=st.integers(3, 200),
)
@example(text="Hund" * 2000, longest=5)  # one word, cut within a token
@example(text="Hund" * 2000, longest=200)
@example(text="🙂" * 2000, longest=200)  # of four tokens a character
@example(text=" " * 5000 + "Hund", longest=150)
@example(text="İ" * 2000, longest=150)  # two characters in lower case
def test_a_text_that_is_tokenised_in_growing_pieces_has_the_first_tokens_of_the_whole(
    tokenizer: TextTokenizer, text: str, longest: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("text.tokenizer.PIECE", 5)
        found = tokenizer.encode([text], longest)
    whole = tokenizer._tokenizer.encode(text, add_special_tokens=False)
    assert found.ids.tolist() == [START, *whole.ids[: longest - 2], END]
    assert found.words.tolist() == [-1, *whole.word_ids[: longest - 2], -1]


class Counting:
    """Counts the characters that a tokenizer is given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer, self.characters = tokenizer, 0

    def encode_batch(self, texts: list[str], **options: bool) -> list[Encoding]:
        self.characters += sum(map(len, texts))
        return self._tokenizer.encode_batch(texts, **options)


@pytest.mark.parametrize("part", ["🙂", "🙂 ", "der Hund "])
def test_a_long_text_is_not_tokenised_far_beyond_its_cut(
    tokenizer: TextTokenizer, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It took the longest token's length for every token: memory and time of hundreds."""
    counting = Counting(tokenizer._tokenizer)
    monkeypatch.setattr(tokenizer, "_tokenizer", counting)
    assert tokenizer.encode([part * (1_000_000 // len(part))], 8193).lengths == 8193
    assert counting.characters <= PIECE


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


@pytest.mark.parametrize("lowercase", [False, True])
def test_the_first_word_has_the_tokens_that_it_has_within_a_text(lowercase: bool) -> None:
    tokenizer = TextTokenizer.train(TEXTS, 300, lowercase)
    hund, der_hund = (tokenizer._tokenizer.encode(text).tokens for text in ("Hund", "Der Hund"))
    assert hund[1:] == der_hund[2:]
    assert tokenizer.encode(["", " "], 50).lengths.tolist() == [2, 3]


@pytest.mark.parametrize(
    "text",
    [
        "Hund läuft",
        " Hund läuft",
        "\nHund läuft",
        "\tHund",
        "\n\nHund",
        "  Hund läuft",
        "<s>Hund",
        "<mask>a b",
        "a <s> b",
    ],
)
def test_the_space_before_a_word_is_not_among_its_tokens_characters(text: str) -> None:
    tokenizer = TextTokenizer.train(TEXTS, 300, True)
    ids, places = tokenizer.encode_placed(text, 50)
    assert ids.tolist() == tokenizer.encode([text], 50).ids.tolist()
    covered = {at for start, end in places.tolist() for at in range(start, end)}
    assert covered >= {at for at, each in enumerate(text) if not each.isspace()}
    for start, end in places.tolist():
        assert not text[start:end].startswith(" ")


def test_a_lower_case_tokenizer_reads_no_case_and_is_saved_as_such(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.train(TEXTS, 300, True)
    upper, lower = (tokenizer.encode([text], 50).ids.tolist() for text in ("HUND Ä", "hund ä"))
    assert upper == lower
    tokenizer.save(tmp_path)
    assert TextTokenizer.load(tmp_path).encode(["HUND Ä"], 50).ids.tolist() == lower
    described = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert described["tokenizer_class"] == "PreTrainedTokenizerFast"  # RoBERTa's reads case


def test_too_few_texts_for_the_vocabulary_are_named() -> None:
    with pytest.raises(TokenizerError, match=r"larger corpus or give --set sizes\.vocabulary="):
        TextTokenizer.train(["a b"], 5000)


def test_fewer_tokens_than_bytes_are_refused_with_the_least() -> None:
    with pytest.raises(
        TokenizerError, match=r"200 tokens are too few: give --set sizes.vocabulary=261"
    ):
        TextTokenizer.train(TEXTS, 200)


@pytest.mark.parametrize("content", [None, "{", '{"model": 1}', "[]"])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: ") as refused:
        TextTokenizer.load(tmp_path)
    assert "\n" not in str(refused.value)


@settings(max_examples=150, deadline=None)
@given(text=st.text("abcdö. \n\u0301\U0001f600", max_size=60), longest=st.integers(3, 9))
@example(text="a" + " " * 5000 + "bc", longest=4)
@example(text="a" * 5000 + " b. c", longest=5)  # one [UNK]
@example(text=" " * 5000, longest=5)
def test_wordpiece_cut_is_the_first_tokens_of_the_whole(text: str, longest: int) -> None:
    tokens = TextTokenizer(wordpiece()).encode([text], longest)
    whole = wordpiece().encode(text, add_special_tokens=False)
    room = longest - 2
    assert tokens.ids.tolist() == [2, *whole.ids[:room], 3]
    assert tokens.words.tolist() == [-1, *whole.word_ids[:room], -1]
    assert tokens.pad == 0


def test_a_tokenizer_of_another_layout_keeps_its_ids(tmp_path: Path) -> None:
    file = wordpiece()
    file.enable_truncation(4)  # as published files may have them
    file.enable_padding(length=6)
    (tmp_path / FILE).write_text(file.to_str())
    tokenizer = TextTokenizer.load(tmp_path)
    tokens = tokenizer.encode(["Dabbc a.", "b"], 100)
    assert tokens.ids.tolist() == [2, 12, 11, 6, 5, 3, 2, 7, 3]
    assert tokens.words.tolist() == [-1, 0, 0, 1, 2, -1, -1, 0, -1]
    assert (tokenizer.start, tokenizer.end, tokenizer.pad, tokenizer.vocabulary) == (2, 3, 0, 14)
    tokenizer.save(tmp_path)
    assert (TextTokenizer.load(tmp_path).encode(["Dabbc a.", "b"], 100).ids == tokens.ids).all()
    roles = json.loads((tmp_path / "special_tokens_map.json").read_text())
    assert roles == {
        "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]",
        "mask_token": "[MASK]",
    }  # fmt: skip


def test_a_tokenizer_without_tokens_at_the_ends_is_refused(tmp_path: Path) -> None:
    file = json.loads(wordpiece().to_str()) | {"post_processor": None}
    (tmp_path / FILE).write_text(json.dumps(file))
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: its post-processor adds 0 tokens"):
        TextTokenizer.load(tmp_path)


def test_ids_with_gaps_count_as_rows() -> None:
    file = json.loads(wordpiece().to_str())
    file["model"]["vocab"]["dabbc"] = 20
    assert TextTokenizer(Tokenizer.from_str(json.dumps(file))).vocabulary == 21


def test_texts_of_several_batches_keep_their_order(
    tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tokenizer.encode(TEXTS, 12)
    monkeypatch.setattr("text.tokenizer.BATCH", 7)
    parts = tokenizer.encode(TEXTS, 12)
    assert parts.ids.tolist() == whole.ids.tolist()
    assert parts.words.tolist() == whole.words.tolist()
    assert parts.offsets.tolist() == whole.offsets.tolist()
