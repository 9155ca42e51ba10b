"""Builds a corpus: downloads, reads, judges and writes. A corpus is whole or absent."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from feature_store.temporary_folders import replace_folder, temporary_folder
from text.corpus import debian, graded, own_files
from text.corpus.archives import Archives
from text.corpus.collection import LEAST_WORDS, Collection
from text.corpus.corpus import FILE, FORMAT
from text.corpus.entry import Entry
from text.corpus.errors import CorpusError
from text.corpus.pairs import PairWriter
from text.corpus.sources import Source, wanted
from text.corpus.split import SEED, SHARES
from text.corpus.tables import SCHEMAS, Tables
from text.corpus.tasks import Tasks
from training.progress import OnProgress, no_progress

OWN = frozenset({FILE, *(f"{name}.parquet" for name in SCHEMAS)})  # files of a corpus


def build(
    out: Path,
    languages: Sequence[str],
    sources: dict[str, Source],
    folders: Sequence[Path],
    archives: Archives,
    on_progress: OnProgress = no_progress,
) -> dict[str, Any]:
    """Build the corpus ``out`` and return what its ``corpus.json`` says. Raises CorpusError."""
    _check_out(out)
    if not sources and not folders:
        raise CorpusError("neither sources nor folders to build from")
    names = Counter((*sources, *map(own_files.source_of, folders)))
    if twice := [name for name, count in names.items() if count > 1]:
        raise CorpusError(f"two sources are called {twice[0]}: rename a folder, or give it once")
    absent = _download(sources, languages, archives, on_progress)
    folder = out.resolve()  # a link stays one
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent, folder.name) as temporary:
            corpus = _build(temporary, languages, sources, folders, archives, on_progress)
            corpus["absent_packages"] = absent
            (temporary / FILE).write_bytes(orjson.dumps(corpus, option=orjson.OPT_INDENT_2))
            _check_out(out)  # again: reading may have taken long
            replace_folder(temporary, folder)
    except OSError as error:
        if error.errno is None or not _is_of(folder, error.filename):
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(out)) from error
    return corpus


def _check_out(out: Path) -> None:
    """Raise CorpusError where a corpus has no place, or would replace other files."""
    if not out.exists():
        return
    if not (out / FILE).exists():
        raise CorpusError(f"{out}: exists and is no corpus; give another name or delete it")
    if others := sorted({path.name for path in out.iterdir()} - OWN):
        raise CorpusError(
            f"{out}: holds other files than a corpus ({others[0]}), and a corpus replaces the "
            "folder; move them or give another name"
        )


def _is_of(folder: Path, name: object) -> bool:
    """Tell whether an error is of writing the corpus, in its temporary folder: pyarrow's name no
    file."""
    if name is None or Path(str(name)) in (folder, folder.parent):
        return True
    return str(name).startswith(str(folder.with_name(f".{folder.name}.")))


def _download(
    sources: dict[str, Source],
    languages: Sequence[str],
    archives: Archives,
    on_progress: OnProgress,
) -> list[str]:
    needed = wanted(sources.values(), languages)
    if needed.missing(archives):
        archives.folder.mkdir(parents=True, exist_ok=True)
        debian.download(needed, archives, on_progress)
    return needed.absent(archives)


def _build(
    folder: Path,
    languages: Sequence[str],
    sources: dict[str, Source],
    folders: Sequence[Path],
    archives: Archives,
    on_progress: OnProgress,
) -> dict[str, Any]:
    path = folder / "collected.parquet"
    collection = Collection(path)
    described = {}
    total = len(sources) + len(folders)
    for number, (name, source) in enumerate(sources.items()):
        on_progress("read", number, total)
        before = len(archives.used)
        _collect(collection, source.read(archives, languages))
        used = [
            {"package": each.package, "version": each.version, "sha256": each.sha256}
            for each in dict.fromkeys(archives.used[before:])
        ]
        described[name] = {"licence": source.licence, "archives": used}
    for number, own in enumerate(folders, start=len(sources)):
        on_progress("read", number, total)
        files: list[dict[str, str]] = []
        _collect(collection, own_files.read(own, languages, files, collection.refused))
        described[own_files.source_of(own)] = {"licence": "your own", "archives": files}
    on_progress("read", total, total)
    refused = collection.refused
    warnings = [found for lang in languages if (found := _shortness(collection, lang))]
    if not len(collection):
        raise CorpusError("no texts: no source has any in " + ", ".join(languages) + _why(refused))
    tables = _write(folder, languages, collection, on_progress)
    files_written = tables.close()
    path.unlink()
    return {
        "format": FORMAT,
        "languages": list(languages),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "split": {"seed": SEED, "shares": SHARES},
        "sources": described,
        "tables": files_written,
        "counts": _counts(tables),
        "refused": _by_source(refused),
        "warnings": warnings,
    }


def _why(refused: Counter[tuple[str, str]]) -> str:
    said = ", ".join(f"{count:,} {reason}" for (_, reason), count in refused.most_common(4))
    return f"; left out: {said}" if said else ""


def _shortness(collection: Collection, lang: str) -> str | None:
    """Return a warning if most texts of a language are too short, as without spaces they are.

    Raises CorpusError if all are.
    """
    enough, short = collection.lengths[lang, True], collection.lengths[lang, False]
    if short <= enough:
        return None
    found = f"{short:,} of {enough + short:,} texts in {lang} have fewer than {LEAST_WORDS} words"
    why = "words end at spaces and punctuation, which few texts in Chinese or Japanese have"
    if not enough:
        raise CorpusError(f"{found}: {why}")
    return f"{found} and are left out: {why}"


def _collect(collection: Collection, entries: Iterable[Entry]) -> None:
    for entry in entries:
        collection.add(entry)


def _write(
    folder: Path, languages: Sequence[str], collection: Collection, on_progress: OnProgress
) -> Tables:
    tables, total, done = Tables(folder), len(collection), 0
    tasks = Tasks(tables, languages)
    writer = PairWriter(tables, languages[0], collection.judge(), collection.refused)
    for entry, rows in collection.entries():
        writer.add(entry, rows)
        tasks.add(entry, rows)
        if (done + len(rows)) // 10_000 > done // 10_000:
            on_progress("write", done, total)
        done += len(rows)
    tasks.finish()
    writer.finish(tasks.rare_names)
    graded.write_pairs(tables, tasks.tagged, languages)
    on_progress("write", total, total)
    return tables


def _counts(tables: Tables) -> list[dict[str, Any]]:
    names = ("table", "source", "languages", "kind", "split")
    return [
        {**dict(zip(names, key, strict=True)), "rows": rows, "words": tables.words[key]}
        for key, rows in sorted(tables.counts.items())
    ]


def _by_source(refused: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (source, reason), count in sorted(refused.items()):
        found.setdefault(source, {})[reason] = count
    return found
