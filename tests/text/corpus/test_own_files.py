from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from text.__main__ import app
from text.corpus.archives import Archives
from text.corpus.build import build
from text.corpus.corpus import Corpus
from text.corpus.entry import Entry
from text.corpus.errors import CorpusError
from text.corpus.own_files import read


def entries(folder: Path, *languages: str) -> list[Entry]:
    return list(read(folder, languages or ("en", "de"), []))


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
