"""The rooms of the product, its files and what they import, read with ``ast``.
``python -m tests.rooms --json`` prints the lines of product Python in each room.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parent.parent
TOP = ("training", "model_export", "feature_store", "service", "loadtest", "text", "batch")


@dataclass(frozen=True, slots=True)
class Import:
    """One import statement's reference to a product module."""

    file: str
    line: int
    module: str  # that is imported, by its dotted name


@cache
def modules() -> dict[str, str]:
    """Product modules by dotted name, with their files; a package is its ``__init__``."""
    found = {}
    for path in sorted(p for top in TOP for p in (ROOT / top).rglob("*.py")):
        file = path.relative_to(ROOT)
        parts = file.parent.parts if file.name == "__init__.py" else file.with_suffix("").parts
        found[".".join(parts)] = str(file)
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Every import of one product file by another, wherever it stands: at module level, within a
    function, or under ``TYPE_CHECKING``.
    """
    return tuple(
        found
        for module, file in modules().items()
        for found in imports_of(module, file, (ROOT / file).read_text(), modules())
    )


def imports_of(module: str, file: str, source: str, known: dict[str, str]) -> Iterator[Import]:
    """``from a.b import c`` is of ``a.b.c`` if that is a module, else of ``a.b``."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names):
                wanted = [name.name for name in names]
            case ast.ImportFrom(origin, names, level):
                base = file.removesuffix(".py").split("/")[:-level] if level else []
                prefix = ".".join([*base, *([origin] if origin else [])])
                wanted = [f"{prefix}.{name.name}" for name in names]
            case _:
                continue
        for name in wanted:
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name and name != module:
                yield Import(file, node.lineno, name)


def room_of(module: str, rooms: frozenset[str]) -> str:
    """The innermost of ``rooms`` that the module is, or lies, in; empty if it is in none."""
    while module and module not in rooms:
        module = module.rpartition(".")[0]
    return module


def lines_of(file: str) -> int:
    return len((ROOT / file).read_text().splitlines())


def folders() -> Counter[str]:
    """Lines of product Python by folder that holds files."""
    lines: Counter[str] = Counter()
    for file in modules().values():
        lines[str(Path(file).parent)] += lines_of(file)
    return lines


def main(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Counts the lines of product Python, in total and in each room."""
    lines = folders()
    top = Counter[str]()
    for folder, count in lines.items():
        top[folder.partition("/")[0]] += count
    if as_json:
        total = {"total": lines.total(), "rooms": top, "folders": dict(sorted(lines.items()))}
        print(json.dumps(total, indent=2))
        return
    for folder, count in sorted(lines.items()):
        print(f"{count:7,} {folder}")
    for room, count in sorted(top.items()):
        print(f"{count:7,} {room} with its folders")
    print(f"{lines.total():7,} total")


if __name__ == "__main__":
    typer.run(main)
