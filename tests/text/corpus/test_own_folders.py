"""Folders of one's own files as they are found: what is read of them, and what is kept of OUT."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

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
from text.corpus.lines import MOST_CELL
from text.corpus.own_files import read

HEADER = "id\ttext\n"


def entries(folder: Path) -> list[Entry]:
    return list(read(folder, ("en", "de"), [], Counter()))


def own(folder: Path, name: str = "texts.tsv", start: str = "The page of") -> Path:
    """Write texts into a folder of one's own."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{name}{n}\t{start} number {chr(97 + n) * 3}\n" for n in range(20)]
    (folder / name).write_text(HEADER + "".join(rows))
    return folder


def test_columns_that_are_no_part_of_a_text_may_be_of_any_type(tmp_path: Path) -> None:
    """As pandas writes a time: nanoseconds, for which Python has no value."""
    times = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    far = pa.array([4_000_000], pa.date32())  # in the year 12921
    table = pa.table({"id": ["1"], "text": ["A text of mine"], "created": times, "until": far})
    pq.write_table(table, tmp_path / "a.parquet")
    assert [entry.rows[0].text for entry in entries(tmp_path)] == ["A text of mine"]


def test_a_time_in_place_of_a_text_is_named(tmp_path: Path) -> None:
    times = pa.array([1_700_000_000_123_456_789], pa.timestamp("ns"))
    pq.write_table(pa.table({"id": times, "text": ["A text"]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet: column id is timestamp\[ns\], not text"):
        entries(tmp_path)


def test_a_parquet_file_without_a_known_column_is_named(tmp_path: Path) -> None:
    pq.write_table(pa.table({"txt": ["A text"]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match=r"a\.parquet: has the columns txt; needed are"):
        entries(tmp_path)


def test_a_cell_of_a_megabyte_is_read_whole(tmp_path: Path) -> None:
    long = "word " * 200_000
    (tmp_path / "a.csv").write_text(f"id,text\n1,{long}\n")
    (entry,) = entries(tmp_path)
    assert entry.rows[0].text == long
    assert len(long) < MOST_CELL


def test_endings_in_upper_case_are_read(tmp_path: Path) -> None:
    own(tmp_path, "a.tsv")
    (tmp_path / "B.CSV").write_text("id,text\n1,A text of mine\n")
    own(tmp_path, "C.TSV")
    assert len(entries(tmp_path)) == 41


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    own(tmp_path / "mine")
    own(tmp_path / "mine" / "more").chmod(0)
    try:
        with pytest.raises(CorpusError, match="mine/more: the folder cannot be read: Permission"):
            entries(tmp_path / "mine")
    finally:
        (tmp_path / "mine" / "more").chmod(0o700)


def test_what_cannot_be_listed_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, for root, too."""
    own(tmp_path)
    (tmp_path / "more").mkdir()
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("more"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(CorpusError, match="more: the folder cannot be read: Permission denied"):
        entries(tmp_path)


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    own(tmp_path)
    (tmp_path / "b.tsv").symlink_to(tmp_path / "gone.tsv")
    with pytest.raises(CorpusError, match=r"b\.tsv: not readable: No such file"):
        entries(tmp_path)


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """``corpus.json`` has the names of what was read, and JSON is UTF-8."""
    own(tmp_path / "mine")
    odd = os.fsencode(tmp_path / "mine") + b"/te\xff.tsv"
    Path(os.fsdecode(odd)).write_text(HEADER + "1\tA text of mine\n")
    command = ["corpus", "build", str(tmp_path / "out"), "--languages=en"]
    result = CliRunner().invoke(app, [*command, f"--from={tmp_path / 'mine'}"])
    assert result.exit_code == 1
    assert "is not UTF-8; rename it" in result.stderr


def test_a_corpus_does_not_replace_other_files(tmp_path: Path) -> None:
    mine, out = own(tmp_path / "mine"), tmp_path / "out"
    archives = Archives(tmp_path / "none")
    build(out, ["en"], {}, [mine], archives)
    build(out, ["en"], {}, [mine], archives)
    kept = own(out / "more")
    with pytest.raises(CorpusError, match=r"out: holds other files than a corpus \(more\)"):
        build(out, ["en"], {}, [mine], archives)
    assert (kept / "texts.tsv").exists()
    assert Corpus.open(out).texts().num_rows > 0


def test_a_folder_beside_a_corpus_is_left_alone(tmp_path: Path) -> None:
    """One called as the temporary folder was."""
    mine, kept = own(tmp_path / "mine"), own(tmp_path / "out.tmp")
    build(tmp_path / "out", ["en"], {}, [mine], Archives(tmp_path / "none"))
    assert (kept / "texts.tsv").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out", "out.tmp"]


def test_a_judgement_given_twice_counts_once(tmp_path: Path) -> None:
    """Of a document that is listed twice, nDCG could not reach 1."""
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "text": "a b c"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "a b"}\n')
    (tmp_path / "qrels").mkdir()
    judged = "query-id\tcorpus-id\tscore\n" + "q1\td1\t1\n" * 2
    (tmp_path / "qrels" / "test.tsv").write_text(judged)
    assert entries(tmp_path)[-1].meta["relevant"] == ["d1"]


def test_files_that_are_not_read_are_counted_by_their_endings(tmp_path: Path) -> None:
    row = json.dumps({"id": "1", "lang": "en", "text": "A text of a book."})
    (tmp_path / "below").mkdir()
    for name in ("a.jsonl", "b.json", "below/c.JSON", "d.csv.gz", "notes", ".hidden", "_SUCCESS"):
        (tmp_path / name).write_text(row)
    refused: Counter[tuple[str, str]] = Counter()
    assert len(list(read(tmp_path, ["en"], [], refused))) == 1
    assert refused == {
        (tmp_path.name, "not read, for the ending .json"): 2,
        (tmp_path.name, "not read, for the ending .gz"): 1,
        (tmp_path.name, "not read, for want of an ending"): 1,
    }


@pytest.mark.parametrize("languages", ["en,pt-br,pt-BR", "pt_br,pt-br"])
def test_a_language_in_two_spellings_is_refused(tmp_path: Path, languages: str) -> None:
    command = ["corpus", "build", str(tmp_path / "out"), f"--languages={languages}"]
    result = CliRunner().invoke(app, [*command, f"--from={tmp_path}"])
    assert result.exit_code == 2
    assert "are one language" in " ".join(result.stderr.replace("│", "").split())
