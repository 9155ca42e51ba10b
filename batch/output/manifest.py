"""Ends a run: verifies every part, gathers what was rejected, writes the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from batch.errors import BatchError
from batch.job import Recipe
from batch.output.folder import naming
from batch.output.folders import AnyFolder
from batch.output.parts import PartNote
from feature_store.parquet.parts import ParquetParts

BLOCK_BYTES = 1 << 20
RECIPE, MANIFEST, REJECTS = "_job.json", "_manifest.json", "_rejects.jsonl"


def note_of(folder: AnyFolder, name: str, recipe: Recipe, span: tuple[int, int]) -> PartNote | None:
    """Return a part's note; None if it is not there, not whole, or of another recipe."""
    data = folder.read(name)
    return None if data is None else _note_in(data, recipe, span)


def _note_in(data: bytes, recipe: Recipe, span: tuple[int, int]) -> PartNote | None:
    try:
        note = PartNote.of(data)
    except ValueError:
        return None
    whole = note.recipe == recipe.digest and (note.start, note.end) == span
    return note if whole else None


def finish(
    folder: AnyFolder, recipe: Recipe, parts: ParquetParts, rejects: Path, about: dict[str, Any]
) -> dict[str, Any]:
    """Write rejects and manifest; return the manifest. BatchError if a part is missing.

    ``rejects``: of the survey. The same output has the same manifest, in however many runs it was
    made.
    """
    counts: Counter[str] = Counter()
    files = []
    digest = sha256()
    whole = rejects.with_suffix(".all")
    with naming(whole), whole.open("wb") as lines:
        lines.writelines(_blocks(rejects))
        for start, end in recipe.parts():
            data, note = _verified(folder, recipe, (start, end))
            counts.update(note.counts)
            mark = sha256(data).hexdigest()
            name = recipe.part_name(start, end)
            digest.update(orjson.dumps([name, mark]))
            files.append({"name": name, "rows": [start, end], "bytes": len(data), "sha256": mark})
            for first, count, reason in note.faults:
                for row in range(first, first + count):
                    rejected = parts.rejected(row, recipe.columns.user, reason)
                    lines.write(as_line(row, rejected.file, rejected.row, reason))
    folder.put(REJECTS, _blocks(whole))
    whole.unlink()
    manifest = {
        "recipe": asdict(recipe),
        **about,
        "counts": dict(sorted(counts.items())),
        "digest": digest.hexdigest(),
        "parts": files,
    }
    folder.put(MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")
    return manifest


def _verified(folder: AnyFolder, recipe: Recipe, span: tuple[int, int]) -> tuple[bytes, PartNote]:
    """Read a part. BatchError unless it is there, and whole."""
    name = recipe.part_name(*span)
    data = folder.read(name)
    note = None if data is None else _note_in(data, recipe, span)
    if data is None or note is None:
        raise BatchError(f"{folder.path / name}: missing or damaged; run the same command again")
    return data, note


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


def as_line(row: int, file: str, in_file: int, reason: str) -> bytes:
    """Return a request that could not be scored as a JSON line."""
    fields = {"input_row": row, "file": file, "row": in_file, "column": None, "reason": reason}
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
