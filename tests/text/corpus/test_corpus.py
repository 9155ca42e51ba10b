from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from text.__main__ import app
from text.corpus.corpus import Corpus
from text.corpus.errors import CorpusError
from text.corpus.tables import SCHEMAS


def test_every_table_has_the_columns_of_its_schema(corpus: Corpus) -> None:
    tables = {
        "texts": corpus.texts(),
        "pairs": corpus.pairs(),
        "graded": corpus.graded(),
        "labels": corpus.labels(),
        "documents": corpus.documents("keywords"),
        "queries": corpus.retrieval("keywords", "en").queries,
        "items": corpus.items(),
    }
    for name, table in tables.items():
        assert table.schema.names == SCHEMAS[name].names
        assert table.num_rows
        assert (
            sum(c["rows"] for c in corpus.about["counts"] if c["table"] == name)
            == (corpus.about["tables"][name]["rows"])
        )


def test_tables_are_read_by_language_and_split(corpus: Corpus) -> None:
    whole = corpus.texts().num_rows
    parts = [
        corpus.texts(lang, split).num_rows
        for lang in corpus.languages
        for split in ("train", "valid", "test")
    ]
    assert sum(parts) == whole
    assert min(parts) > 0
    assert set(corpus.pairs("en", "en", kind="title")["lang_b"].to_pylist()) == {"en"}


def test_a_folder_that_is_no_corpus_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no corpus: it has no corpus\.json; python -m text"):
        Corpus.open(tmp_path)
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(CorpusError, match=r"corpus\.json: not readable"):
        Corpus.open(tmp_path)
    (tmp_path / "corpus.json").write_text('{"format": 2}')
    with pytest.raises(CorpusError, match="a corpus of format 2, not 1; build it again"):
        Corpus.open(tmp_path)


def test_a_missing_table_is_named(corpus: Corpus, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(corpus.folder, copy)
    (copy / "pairs.parquet").unlink()
    with pytest.raises(CorpusError, match=r"pairs\.parquet: not readable"):
        Corpus.open(copy).pairs()


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({}, "languages: missing; tables: missing"),
        ({"languages": []}, "languages: holds 0, and must hold at least 1"),
        ({"languages": "en"}, "languages: not a list"),
        ({"tables": {"texts": {"rows": 1}}}, "tables.texts.sha256: missing"),
        ({"sources": []}, "sources: not a mapping"),
    ],
)
def test_a_description_that_lacks_what_is_read_is_named(
    tmp_path: Path, about: dict[str, object], message: str
) -> None:
    (tmp_path / "corpus.json").write_text(json.dumps({"format": 1} | about))
    with pytest.raises(CorpusError) as error:
        Corpus.open(tmp_path)
    assert f"{tmp_path / 'corpus.json'}: " in str(error.value)
    assert message in str(error.value)
    assert str(error.value).endswith("; build the corpus again")


def test_a_table_of_another_corpus_is_not_read(corpus: Corpus, tmp_path: Path) -> None:
    """It would be trained on, and be named as the corpus that it is not."""
    copy = Corpus.open(shutil.copytree(corpus.folder, tmp_path / "copy"))
    path = copy.folder / "texts.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(CorpusError, match=r"texts\.parquet: is not the one that corpus\.json desc"):
        copy.texts("en")


@pytest.mark.parametrize("damage", ["absent", "cut", "foreign"])
def test_a_damaged_table_is_named_in_one_line(corpus: Corpus, tmp_path: Path, damage: str) -> None:
    copy = Corpus.open(shutil.copytree(corpus.folder, tmp_path / "copy"))
    path = copy.folder / "queries.parquet"
    if damage == "foreign":
        pq.write_table(pa.table({"task": ["mine"]}), path)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        path.unlink()
    for read in (copy.tasks, lambda: copy.retrieval("keywords", "en")):
        with pytest.raises(CorpusError, match=r"^\S+queries\.parquet: .*; build the corpus again$"):
            read()


def test_the_commands_build_and_describe_a_corpus(archives: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "corpus")
    command = ["corpus", "build", out, "--languages", "en,de", "--archives", str(archives)]
    built = CliRunner().invoke(app, [*command, "--sources", "packages,libreoffice-help", "--json"])
    assert built.exit_code == 0, built.output
    about = json.loads(built.stdout)
    stats = CliRunner().invoke(app, ["corpus", "stats", out, "--json"])
    assert json.loads(stats.stdout) == about | {"digest": Corpus.open(Path(out)).digest}
    assert about["sources"]["libreoffice-help"]["licence"] == "MPL-2.0"
    assert CliRunner().invoke(app, ["corpus", "stats", out]).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats", "nothing"], "no corpus"),
        (["build", "out", "--from", "nothing"], "no such folder"),
        (["build", "out", "--sources", "nothing"], "source 'nothing': none of packages"),
    ],
)
def test_an_expected_error_is_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["corpus", *arguments])
    assert done.exit_code == 1
    assert message in done.output
    assert not list(tmp_path.iterdir())
