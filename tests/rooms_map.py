"""Write the map of rooms in docs/architecture.md: ``python -m tests.rooms_map``.

Purpose and start of a room are its docstring's; what a room of the service may import is the table
in ``tests/test_rooms.py``, and its docstring has to list the same. ``docs/check.py`` holds them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.rooms import ROOT, TOP, modules
from tests.test_rooms import LOW, ROOMS, SERVICE

PAGE = ROOT / "docs" / "architecture.md"
FORM = re.compile(
    r"(?P<purpose>.+?)\n\n(May import (?P<imports>.+?)\.\s+)?Start reading (at|in) (?P<start>.+)",
    re.DOTALL,
)
UNSHOWN = {"service", "service.api.admin", "service.api.app"}


def described(file: str) -> Mapping[str, str]:
    """A room's purpose, what it says that it may import, and where it says to start."""
    text = ast.get_docstring(ast.parse((ROOT / file).read_text())) or ""
    if not file.endswith("/__init__.py"):
        purpose = text.split("\n\n")[0].replace("\n", " ").replace("``", "`").rstrip(".")
        return {"purpose": purpose, "imports": "", "start": "–"}
    found = FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{file}: not of the form: purpose; May import …; Start reading at …")
    says = {name: " ".join((part or "").split()) for name, part in found.groupdict().items()}
    return {name: part.replace("``", "`").rstrip(".") for name, part in says.items()}


def short(room: str) -> str:
    return room.removeprefix("service.").replace(".", "/")


def allowed(room: str) -> str:
    """What the table allows; beyond LOW, if that is all allowed. ``x ↓``: and what ``x`` may."""
    common = LOW if set(SERVICE[room]) >= LOW else {"service"}
    left, said = set(SERVICE[room]) - common, []
    for other in sorted(SERVICE, key=lambda other: -len(SERVICE[other])):
        if other in left and other.rpartition(".")[0] not in left - {"service"}:
            below = set(SERVICE[other]) - common
            down = bool(below) and below <= set(SERVICE[room])
            left -= {other, *below} if down else {other}
            said.append(f"`{short(other)}`" + " ↓" * down)
    return ", ".join(said) or ("–" if common is LOW else "nothing")


def service_rows() -> Iterator[str]:
    for room in reversed(SERVICE):
        if room not in UNSHOWN:
            says = described(modules()[room])
            name = short(room) + ("/" if modules()[room].endswith("/__init__.py") else ".py")
            yield f"| `{name}` | {says['purpose']} | {allowed(room)} | {says['start']} |"


def missaid() -> Iterator[str]:
    """Rooms whose docstrings list other rooms than the table does."""
    packages = {room for room in SERVICE if modules()[room].endswith("/__init__.py")} - {"service"}
    for room in sorted(packages):
        says = described(modules()[room])["imports"]
        but = re.match("every room but (.+)", says)
        listed = set(re.findall(r"\w+", (but[1] if but else says).replace(" and ", " ")))
        mays = {short(other).partition("/")[0] for other in SERVICE[room]} - {"service"}
        if but:
            mays = {short(other) for other in packages - set(SERVICE[room]) - {room}}
            mays = {name for name in mays if not name.startswith(short(room))}
        if listed != mays and not says.startswith(("what ", "nothing")):
            yield f"{modules()[room]}: May import {says or 'nothing'}; the table: {sorted(mays)}"


def folder_rows() -> Iterator[str]:
    for module, file in sorted(modules().items()):
        top = module.partition(".")[0]
        if top in ROOMS and top != "service" and module != top and file.endswith("/__init__.py"):
            says = described(file)
            cells = (f"`{Path(file).parent}/`", says["purpose"], says["imports"], says["start"])
            yield f"| {' | '.join(cells)} |"


def page(text: str) -> str:
    """``text`` with its two generated tables replaced."""
    head = "| room | for | may import | start at |\n|---|---|---|---|\n"
    for name, rows in (("rooms", service_rows()), ("folders", folder_rows())):
        marks = re.compile(rf"(<!-- {name}: begin -->\n).*(<!-- {name}: end -->)", re.DOTALL)
        table = head + "\n".join(rows) + "\n"
        assert marks.search(text), f"no place for the table of {name}"
        text = marks.sub(lambda m, table=table: m[1] + table + m[2], text)
    return text


def missing_names(text: str) -> Iterator[str]:
    """Files of the request's way that are not there, and rooms whose imports differ."""
    way = text.partition("## The way of a score request")[2].partition("```text")[2]
    files = re.findall(r"[a-z_/]+\.py", way.partition("```")[0])
    if len(files) < 6:
        yield "docs/architecture.md: the way of a score request names no files"
    for file in files:
        if not (ROOT / "service" / file).exists():
            yield f"docs/architecture.md: service/{file}: no such file"
    for room, imported in re.findall(r"^\| `(\w+)/` \|.+\| (.+) \|$", text, re.MULTILINE):
        tops = set(re.findall(rf"`({'|'.join(TOP)})\b", imported))
        if room in ROOMS and tops != set(ROOMS[room]):
            yield f"docs/architecture.md: {room} may import {sorted(ROOMS[room])}, not {tops}"


def faults() -> Iterator[str]:
    try:
        text = PAGE.read_text()
        if text != page(text):
            yield "docs/architecture.md: not the rooms there are; run python -m tests.rooms_map"
        yield from missaid()
        yield from missing_names(text)
    except ValueError as error:
        yield str(error)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
