"""Ends a run: verifies every part, gathers what was rejected, writes the manifest."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from hashlib import sha256
from typing import Any

import orjson

from batch.errors import BatchError
from batch.job import Recipe
from batch.output.folders import AnyFolder
from batch.output.parts import PartNote
from feature_store.parquet.parts import ParquetParts

RECIPE, MANIFEST, REJECTS = "_job.json", "_manifest.json", "_rejects.jsonl"


def note_of(folder: AnyFolder, name: str, recipe: Recipe, span: tuple[int, int]) -> PartNote | None:
    """Return a part's note; None if it is not there, not whole, or of another recipe."""
    data = folder.read(name)
    if data is None:
        return None
    try:
        note = PartNote.of(data)
    except ValueError:
        return None
    whole = note.recipe == recipe.digest and (note.start, note.end) == span
    return note if whole else None


def finish(
    folder: AnyFolder, recipe: Recipe, parts: ParquetParts, rejects: bytes, about: dict[str, Any]
) -> dict[str, Any]:
    """Write rejects and manifest; return the manifest. BatchError if a part is missing.

    The same output has the same manifest, in however many runs it was made.
    """
    counts: Counter[str] = Counter()
    files, lines = [], [rejects]
    digest = sha256()
    for start, end in recipe.parts():
        name = recipe.part_name(start, end)
        data, note = folder.read(name), note_of(folder, name, recipe, (start, end))
        if data is None or note is None:
            raise BatchError(
                f"{folder.path / name}: missing or damaged; run the same command again"
            )
        counts.update(note.counts)
        mark = sha256(data).hexdigest()
        digest.update(orjson.dumps([name, mark]))
        files.append({"name": name, "rows": [start, end], "bytes": len(data), "sha256": mark})
        for row, reason in note.faults:
            rejected = parts.rejected(row, recipe.columns.user, reason)
            lines.append(as_line(row, rejected.file, rejected.row, reason))
    folder.put(REJECTS, b"".join(lines))
    manifest = {
        "recipe": asdict(recipe),
        **about,
        "counts": dict(sorted(counts.items())),
        "digest": digest.hexdigest(),
        "parts": files,
    }
    folder.put(MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2) + b"\n")
    return manifest


def as_line(row: int, file: str, in_file: int, reason: str) -> bytes:
    """Return a request that could not be scored as a JSON line."""
    fields = {"input_row": row, "file": file, "row": in_file, "column": None, "reason": reason}
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
