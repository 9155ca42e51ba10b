from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.full_disk import files_of_at_most
from text.__main__ import app
from text.corpus import names
from text.corpus.archives import Archives
from text.corpus.build import build
from text.corpus.corpus import Corpus
from text.corpus.entry import Entry
from text.corpus.errors import CorpusError
from text.corpus.own_files import read


def entries(folder: Path, *languages: str) -> list[Entry]:
    return list(read(folder, languages or ("en", "de"), [], Counter()))


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))


TEXTS = [
    {"id": "1", "lang": "en", "text": "The ferry leaves at noon.", "label": "travel"},
    {"id": "1", "lang": "de", "text": "Die Fähre legt mittags ab.", "label": "travel"},
    {"id": "2", "lang": "fr", "text": "Une langue de trop.", "label": ""},
]


@pytest.mark.parametrize("ending", ["jsonl", "tsv", "csv", "parquet"])
def test_lines_of_one_id_are_translations_in_every_format(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mine.{ending}"
    mark = {"tsv": "\t", "csv": ","}.get(ending)
    if mark:
        rows = [list(TEXTS[0]), *(list(row.values()) for row in TEXTS)]
        path.write_text("".join(f"{mark.join(row)}\n" for row in rows))
    elif ending == "jsonl":
        lines(path, TEXTS)
    else:
        pq.write_table(pa.Table.from_pylist(TEXTS), path)
    (entry,) = entries(tmp_path)
    assert entry.rows == [("text", *(row[c] for c in ("lang", "text"))) for row in TEXTS[:2]]
    assert entry.meta == {"labels": {"label": "travel"}}


def test_sts_files_are_scaled_and_split_by_name(tmp_path: Path) -> None:
    (tmp_path / "sts.de.test.tsv").write_text(
        'sentence1\tsentence2\tscore\nEin "Hund" läuft.\tEin Hund rennt.\t4.5\nA b.\tC d.\t0\n'
    )
    first, second = entries(tmp_path)
    assert (first.meta["score"], second.meta["score"]) == (0.9, 0.0)
    assert first.split == "test"
    assert first.rows == [("a", "de", 'Ein "Hund" läuft.'), ("b", "de", "Ein Hund rennt.")]


def test_pairs_take_their_languages_from_columns_or_from_the_name(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", [{"text_a": "one", "text_b": "eins", "langs": "en-de"}])
    lines(tmp_path / "b.de-en.jsonl", [{"text_a": "zwei", "text_b": "two", "score": 0.5}])
    lines(tmp_path / "c.jsonl", [{"text_a": "three", "text_b": "four", "split": "valid"}])
    found = [([row.lang for row in e.rows], e.split, dict(e.meta)) for e in entries(tmp_path)]
    assert found == [
        (["en", "de"], None, {}),
        (["de", "en"], None, {"score": 0.5}),
        (["en", "en"], "valid", {}),
    ]


def test_a_folder_in_the_layout_of_mteb_is_a_task(tmp_path: Path) -> None:
    folder = tmp_path / "mine" / "questions-de"
    documents = [{"_id": "d1", "title": "Fähren", "text": "Die Fähre legt mittags am Hafen ab."}]
    documents += [{"_id": "d2", "title": "", "text": "Das Museum öffnet erst am Nachmittag."}]
    lines(folder / "corpus.jsonl", documents)
    lines(folder / "queries.jsonl", [{"_id": "q1", "text": "Wann fährt die Fähre?"}])
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\n")
    lines(folder.parent / "texts.jsonl", TEXTS)
    build(tmp_path / "out", ["en", "de"], {}, [tmp_path / "mine"], Archives(tmp_path / "none"))
    corpus = Corpus.open(tmp_path / "out")
    task = corpus.retrieval("questions", "de")
    assert corpus.tasks() == ("questions",)
    assert [q["relevant"] for q in task.queries.to_pylist()] == [["d1"]]
    assert [d["text"] for d in task.documents.to_pylist()] == [
        "Fähren\nDie Fähre legt mittags am Hafen ab.",
        "Das Museum öffnet erst am Nachmittag.",
    ]
    assert corpus.about["sources"]["mine"]["archives"][0]["package"].endswith("corpus.jsonl")


def task(folder: Path, text: str) -> None:
    lines(folder / "corpus.jsonl", [{"_id": "d1", "text": text}])
    lines(folder / "queries.jsonl", [{"_id": "q1", "text": text.upper()}])
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")


def test_what_is_named_after_another_language_is_left_out_and_counted(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    task(mine / "questions-en", "The ferry leaves at noon.")
    task(mine / "questions-es", "El barco sale a mediodía.")
    sts = "sentence1\tsentence2\tscore\nThe ferry leaves late.\tEl barco sale tarde.\t4\n"
    (mine / "sts.en-es.test.tsv").write_text(sts)
    lines(mine / "fr.jsonl", [{"id": "1", "text": "Le bateau part ce soir."}])
    lines(mine / "texts.jsonl", TEXTS)
    command = ["corpus", "build", str(tmp_path / "out"), "--languages=en,de", f"--from={mine}"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    corpus = Corpus.open(tmp_path / "out")
    assert set(corpus.documents("questions")["lang"].to_pylist()) == {"en"}
    assert corpus.graded().num_rows == 0
    other = "not among the languages"
    refused = corpus.about["refused"]["mine"].items()
    assert {reason: count for reason, count in refused if reason.startswith("in ")} == {
        f"in es (questions-es), {other}": 2,
        f"in es (sts.en-es.test.tsv), {other}": 1,
        f"in fr (fr.jsonl), {other}": 1,
        f"in fr (texts.jsonl), {other}": 1,
    }
    assert f"left out of mine: 2 in es (questions-es), {other}" in " ".join(result.stderr.split())


def test_files_that_are_all_in_other_languages_are_named(tmp_path: Path) -> None:
    lines(tmp_path / "mine" / "texts.fr.jsonl", [{"id": "1", "text": "Le bateau part ce soir."}])
    with pytest.raises(CorpusError, match=r"any in en; left out: 1 in fr \(texts\.fr\.jsonl\)"):
        build(tmp_path / "out", ["en"], {}, [tmp_path / "mine"], Archives(tmp_path / "none"))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("sts.en-de.test", (["en", "de"], "test", "sts")),
        ("questions-es", (["es"], None, "questions")),
        ("sts.es-en.train", (["es", "en"], "train", "sts")),
        ("es_texts", (["es"], None, "texts")),
        ("is-it-de-or-not", (["de"], None, "is-it-or-not")),
        ("my-texts", ([], None, "my-texts")),
        ("how-to-de", (["de"], None, "how-to")),
        ("a.pt-br.dev", (["pt-br"], "valid", "a")),
        ("de", (["de"], None, "de")),
        ("test", ([], "test", "test")),
    ],
)
def test_a_name_gives_languages_and_split(name: str, found: tuple[list[str], str, str]) -> None:
    assert names.read(name, ("en", "de", "pt-br")) == found


def test_given_test_texts_are_not_in_training(tmp_path: Path) -> None:
    """As with STS-B, whose test sentences may be among one's own texts."""
    sentence = "The ferry leaves the harbour at noon."
    own = [{"id": str(n), "lang": "en", "text": f"Page {chr(97 + n)} of a book."} for n in range(9)]
    lines(tmp_path / "mine" / "texts.train.jsonl", [*own, {"id": "x", "text": sentence.upper()}])
    row = {"sentence1": sentence, "sentence2": "At noon the ferry departs.", "score": 5}
    lines(tmp_path / "mine" / "sts.test.jsonl", [row])
    build(tmp_path / "out", ["en"], {}, [tmp_path / "mine"], Archives(tmp_path / "none"))
    corpus = Corpus.open(tmp_path / "out")
    assert corpus.graded("en", "en", "test")["score"].to_pylist() == [1.0]
    assert corpus.texts("en", "train").num_rows == 9
    assert corpus.about["refused"]["mine"] == {"recurs in held-out texts": 1}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"id": "1", "text": "x"}\nno', "a.jsonl, line 2: not JSON"),
        ("a.jsonl", '{"id": "1", "txt": "x"}', "a.jsonl: has the columns id, txt; needed are"),
        ("a.jsonl", '{"id": "1", "text": "x"}\n{"id": "2"}', "a.jsonl, row 2: no text"),
        ("a.jsonl", '{"text_a": "x", "text_b": "y", "score": 3}', "row 1: score 3 is not in 0 … 1"),
        (
            "a.jsonl",
            '{"text_a": "x", "text_b": "y", "score": "z"}',
            "row 1: score 'z' is no number",
        ),
        ("a.jsonl", '{"id": "1", "text": "x", "split": "exam"}', "row 1: split 'exam' is none of"),
        ("a.tsv", "sentence1\tsentence2\tscore\nx\ty\t6\n", "row 1: score 6 is not in 0 … 5"),
        ("a.parquet", "PAR1", "a.parquet: not readable"),
        ("a.tsv", "id\ttext\n1\t\n", "a.tsv, row 1: no text"),
        ("a.tsv", "id\ttext\n1\tx\ty\n", "a.tsv, line 2: more cells than the header has columns"),
        ("a.tsv", "id\ttext\ttext\n1\tx\ty\n", "a.tsv: the column text is there twice"),
        ("a.csv", 'id,text\n1,"x\n2,y\n', "a.csv, line 3: unexpected end of data"),
        ("a.jsonl", '{"id": "1", "text": ["x"]}', "a.jsonl, row 1: text is a list, not text"),
        ("a.jsonl", '{"id": "1", "text": 5}', "a.jsonl, row 1: text is a number, not text"),
        ("a.jsonl", '{"id": "1", "text": "x", "split": [1]}', "row 1: split is a list, not text"),
        ("a.jsonl", '{"id": "1", "text": "x", "group": {}}', "row 1: group is an object, not text"),
        (
            "a.jsonl",
            '{"id": "1", "text": "x", "lang": "English"}',
            "row 1: lang 'English': must be a language code, such as en",
        ),
        (
            "a.jsonl",
            '{"text_a": "x", "text_b": "y", "langs": "en-de-es"}',
            "row 1: langs 'en-de-es': must be as en-de",
        ),
        ("a.jsonl", '{"text_a": "x", "text_b": "y", "score": true}', "score True is no number"),
        ("a.jsonl", '{"text_a": "x", "text_b": "y", "score": null}', "a.jsonl, row 1: no score"),
        (
            "a.jsonl",
            '{"text_a": "x", "text_b": "y", "score": 1}\n{"text_a": "x", "text_b": "z"}',
            "a.jsonl, row 2: no score",
        ),
        (
            "a.jsonl",
            '{"text_a": "x", "text_b": "y"}\n{"text_a": "x", "text_b": "z", "score": 1}',
            "row 2: has a score, and the first row has none",
        ),
        (
            "a.jsonl",
            '{"id": "1", "text": "x"}\n{"id": "1", "text": "y"}',
            "row 2: id '1' has two texts in en",
        ),
        (
            "a.jsonl",
            "".join(f'{{"id": {n}, "text": "x"}}\n' for n in (1, 2, 1)),
            "row 3: id '1' again; lines of one id follow one another",
        ),
        ("a.txt", "x", "no file ends in .parquet, .tsv, .csv, .jsonl"),
    ],
)
def test_an_unusable_file_is_named_with_its_row(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(CorpusError) as error:
        entries(tmp_path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array(["one", "two", 3 * "x"]).cast(pa.binary()), "row 1: text is bytes, not text"),
        (pa.array([["one"], [], []]), "row 1: text is a list, not text"),
        (pa.array(["one", "two", None]), "row 3: no text"),
        (pa.array([1.5, math.nan, 2.0]), "row 1: text is a number, not text"),
    ],
)
def test_a_parquet_column_of_another_type_is_named(
    tmp_path: Path, column: pa.Array, message: str
) -> None:
    pq.write_table(pa.table({"id": ["1", "2", "3"], "text": column}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=rf"a\.parquet, {message}"):
        entries(tmp_path)


@pytest.mark.parametrize("ending", ["tsv", "csv", "parquet"])
def test_text_that_is_not_utf8_is_named_with_its_place(tmp_path: Path, ending: str) -> None:
    odd = b"a lone surrogate \xed\xa0\x80"
    if ending == "parquet":
        texts = pa.array([b"good", odd]).view(pa.binary())
        table = pa.table({"id": ["1", "2"], "text": texts.cast(pa.string(), safe=False)})
        pq.write_table(table, tmp_path / "a.parquet")
    else:
        mark = {"tsv": b"\t", "csv": b","}[ending]
        lines = (b"id" + mark + b"text", b"1" + mark + b"good", b"2" + mark + odd)
        (tmp_path / f"a.{ending}").write_bytes(b"\n".join(lines))
    where = "rows 1 to 2: a text that is not UTF-8" if ending == "parquet" else "line 3: not UTF-8"
    with pytest.raises(CorpusError, match=rf"a\.{ending}, {where}"):
        entries(tmp_path)


def test_numbers_are_names_and_nan_is_no_value(tmp_path: Path) -> None:
    """As pandas writes integers, and columns with missing values."""
    rows = {"id": [7, 8], "text": ["one", "two"], "group": [math.nan, 3.0], "label": [1, None]}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    first, second = entries(tmp_path)
    source = tmp_path.name
    assert (first.id, first.group, first.meta) == ("7", f"{source}:7", {"labels": {"label": "1"}})
    assert (second.id, second.group, second.meta) == ("8", f"{source}:3.0", {})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"qrels/test.tsv": "q1\td1\tmuch\n"}, "test.tsv, row 1: score 'much' is no number"),
        ({"qrels/test.tsv": "q1\td9\t1\n"}, "has no query of queries.jsonl with a document of"),
        ({"qrels/test.tsv": "q9\td1\t1\n"}, "has no query of queries.jsonl with a document of"),
        (
            {"corpus.jsonl": '{"_id": "d1", "text": "a b c", "title": 5}\n'},
            "corpus.jsonl, row 1: title is a number, not text",
        ),
        (
            {"corpus.jsonl": '{"_id": "d1", "text": "a b c"}\n' * 2},
            "corpus.jsonl, row 2: _id 'd1' again",
        ),
        ({"queries.jsonl": '{"_id": "q1"}\n'}, "queries.jsonl, row 1: no text"),
    ],
)
def test_an_unusable_task_is_named_with_its_row(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    good = {
        "corpus.jsonl": '{"_id": "d1", "text": "a b c"}\n',
        "queries.jsonl": '{"_id": "q1", "text": "a b"}\n',
        "qrels/test.tsv": "q1\td1\t1\n",
    }
    (tmp_path / "qrels").mkdir()
    for name, content in (good | files).items():
        header = "query-id\tcorpus-id\tscore\n" if name.endswith(".tsv") else ""
        (tmp_path / name).write_text(header + content)
    with pytest.raises(CorpusError) as error:
        entries(tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize("languages", ["english,de", "en,../de", "EN"])
def test_a_language_is_a_code(tmp_path: Path, languages: str) -> None:
    lines(tmp_path / "mine" / "texts.jsonl", TEXTS)
    command = ["corpus", "build", str(tmp_path / "out"), f"--languages={languages}"]
    result = CliRunner().invoke(app, [*command, f"--from={tmp_path / 'mine'}"])
    assert result.exit_code == 2
    said = " ".join(result.stderr.replace("│", "").split())  # of the box
    assert "is no language code, such as en or pt-br" in said


def test_two_folders_of_one_name_are_refused(tmp_path: Path) -> None:
    """Ids and the record of what was read go by the name."""
    for parent in ("a", "b"):
        lines(tmp_path / parent / "mine" / "texts.jsonl", TEXTS)
    folders = [tmp_path / parent / "mine" for parent in ("a", "b")]
    with pytest.raises(CorpusError, match="two sources are called mine: rename a folder"):
        build(tmp_path / "out", ["en", "de"], {}, folders, Archives(tmp_path / "none"))


@pytest.mark.parametrize("size", [100, 4_000])
def test_a_corpus_that_cannot_be_written_is_named_and_absent(tmp_path: Path, size: int) -> None:
    rows = [{"id": str(n), "lang": "en", "text": f"Text {n:x} of a book"} for n in range(3_000)]
    lines(tmp_path / "mine" / "texts.jsonl", rows)
    with pytest.raises(OSError, match="File too large") as failed, files_of_at_most(size):
        build(tmp_path / "out", ["en"], {}, [tmp_path / "mine"], Archives(tmp_path / "none"))
    assert failed.value.filename == str(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


CHINESE = ("今天天气很好。", "我们去公园散步。", "他每天早上喝咖啡。")


@pytest.mark.parametrize("more", [(), ("天气好,我们去公园,然后回家。",)])
def test_texts_without_spaces_are_not_lost_silently(tmp_path: Path, more: tuple[str, ...]) -> None:
    english = [{"id": "1", "lang": "en", "text": "The weather is fine today."}]
    chinese = [{"id": f"zh{n}", "lang": "zh", "text": t} for n, t in enumerate(CHINESE + more)]
    lines(tmp_path / "mine" / "texts.jsonl", english + chinese)
    command = ["corpus", "build", str(tmp_path / "corpus"), "--languages=en,zh"]
    result = CliRunner().invoke(app, [*command, f"--from={tmp_path / 'mine'}"])
    said = f"3 of {len(chinese)} texts in zh have fewer than 3 words"
    assert said in " ".join((result.stdout + result.stderr).split())
    assert result.exit_code == (0 if more else 1)
    assert (tmp_path / "corpus").exists() == bool(more)
