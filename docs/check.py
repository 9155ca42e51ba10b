"""The docs check: every link resolves, every command shown exists. ``python docs/check.py``.

Reads the project's Markdown files and reports, a line each with file and line number:

- a relative link (or picture) whose file, or whose heading, is not there;
- a ``make TARGET`` that the Makefile does not have;
- a ``python -m ROOM COMMAND --option`` that the room's own command line does not know;
- a file of the repository, or a ``python -m tests.…``, that is not there;
- a decision that has not the form that ``docs/decisions/README.md`` describes;
- a room with more of the words that ``docs/prose.py`` counts than it may have (``--prose`` prints
  the table of rooms);
- a map of the rooms that is not what ``tests/rooms_map.py`` writes;
- tables of settings that are not what ``docs/settings_table.py`` writes.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prose
import settings_table
import typer.main

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("training", "model_export", "feature_store", "service", "loadtest", "text", "batch")
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
MAKE = re.compile(r"(?:^|`|&& )make ([a-z][a-z-]*)", re.MULTILINE)
TOP = "|".join((*ROOMS, "tests", "docs", "deploy"))
FILE = re.compile(rf"(?<![\w/.])((?:{TOP})/[\w./-]*\w\.\w+)")
MODULE = re.compile(r"python -m (tests\.\w+(?:\.\w+)*)")
DECISION = re.compile(
    r"- \*\*Context:\*\* .+- \*\*Decision:\*\* .+- \*\*Alternatives, measured:\*\* .+"
    r"- \*\*Status:\*\* (Current|In part superseded|Superseded)\b.*\d{4}-\d\d-\d\d.*",
    re.DOTALL,
)
COMMAND = re.compile(rf"python -m ({'|'.join(ROOMS)})((?: [^\s`|&;)]+)*)")


def markdown_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],  # noqa: S607 — whichever git is in use
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split()]


def anchors(path: Path) -> set[str]:
    """The headings of a Markdown file, as a reader's browser would link them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}


def broken_links(path: Path, line: str) -> Iterator[str]:
    for target in LINK.findall(line):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, heading = target.partition("#")
        file = (path.parent / name) if name else path
        if not file.exists():
            yield f"link to {target}: no such file"
        elif heading and file.suffix == ".md" and heading not in anchors(file):
            yield f"link to {target}: no such heading"


def unknown_targets(line: str, targets: set[str]) -> Iterator[str]:
    for target in MAKE.findall(line):
        if target not in targets:
            yield f"make {target}: the Makefile has no such target"


def unknown_commands(line: str) -> Iterator[str]:
    for room, rest in COMMAND.findall(line):
        words = rest.split()
        command: Any = typer.main.get_command(importlib.import_module(f"{room}.__main__").app)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        if getattr(command, "commands", None) and words and not words[0].startswith("-"):
            yield f"python -m {room}: no command {words[0]!r}"
            continue
        known = {"--help"} | {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        for word in words:
            option = word.split("=")[0].rstrip(".,:")
            if option.startswith("--") and option not in known:
                yield f"python -m {room}: no option {option}"


def missing_files(line: str) -> Iterator[str]:
    for name in FILE.findall(line):
        if not (ROOT / name).exists():
            yield f"{name}: no such file"
    for module in MODULE.findall(line):
        path = ROOT / module.replace(".", "/")
        if not (path.with_suffix(".py").exists() or (path / "__main__.py").exists()):
            yield f"python -m {module}: no such module"


def malformed_decisions(path: Path) -> Iterator[str]:
    """Entries that are no Context, Decision, Alternatives and Status, or exceed eight lines."""
    for entry in re.split(r"^### ", path.read_text(), flags=re.MULTILINE)[1:]:
        title, _, body = entry.partition("\n")
        if not DECISION.fullmatch(body.strip()):
            yield f"{title}: not of the form Context, Decision, Alternatives, measured, Status"
        if len(body.strip().splitlines()) > 8:
            yield f"{title}: more than 8 lines"


def faults() -> Iterator[str]:
    configuration = settings_table.PAGE.read_text()
    if configuration != settings_table.page(configuration):
        yield "docs/configuration.md: not the settings there are; run python docs/settings_table.py"
    sys.path.insert(0, str(ROOT))
    yield from importlib.import_module("tests.rooms_map").faults()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in markdown_files():
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            checks = (
                broken_links(path, line),
                unknown_targets(line, targets),
                unknown_commands(line),
                missing_files(line),
            )
            for check in checks:
                yield from (f"{path.relative_to(ROOT)}:{number}: {fault}" for fault in check)
        if path.parent.name == "decisions":
            yield from (f"{path.relative_to(ROOT)}: {d}" for d in malformed_decisions(path))
    yield from prose.excesses(prose.counts(ROOT, ROOMS, markdown_files()))


if __name__ == "__main__":
    if "--prose" in sys.argv[1:]:
        print(prose.table(prose.counts(ROOT, ROOMS, markdown_files())))
        sys.exit()
    found = list(faults())
    print("\n".join(found) or f"docs: {len(markdown_files())} files, every link and command exists")
    sys.exit(1 if found else 0)
