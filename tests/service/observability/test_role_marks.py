"""Marks of role changes: one per change, shared by processes, and kept by a successor."""

from __future__ import annotations

from pathlib import Path

from service.observability.role_marks import KEPT_S, MOST, SETTLED_S, RoleMarks

START = {"active": None, "canary": None, "shadow": None}
SERVING = {**START, "active": "a", "canary": "b 5%"}


def shown(marks: RoleMarks) -> list[tuple[float, str, str]]:
    return [(mark.at, mark.what, mark.text) for mark in marks.marks]


def test_a_successor_goes_on_with_the_marks_and_marks_no_start(tmp_path: Path) -> None:
    file = tmp_path / "marks.json"
    first = RoleMarks(file)
    for at, roles in enumerate((START, {**START, "active": "a"}, SERVING)):
        first.look(roles, at)
    before = [(1, "active", "a"), (2, "canary", "b 5%")]
    assert shown(first) == before
    second = RoleMarks(file)
    for at, roles in enumerate((START, {**START, "active": "a"}, SERVING), 10):
        second.look(roles, at)
    assert shown(second) == before
    later = 11 + SETTLED_S
    second.look({**SERVING, "active": "b", "canary": None}, later)
    assert shown(second)[2:] == [(later, "active", "b"), (later, "canary", "none")]


def test_what_changed_while_no_process_looked_is_marked(tmp_path: Path) -> None:
    file = tmp_path / "marks.json"
    RoleMarks(file).look(SERVING, 0)
    second = RoleMarks(file)
    second.look({**START, "active": "c"}, 10)
    assert shown(second) == [(10, "active", "c")]
    second.look({**START, "active": "c"}, 10 + SETTLED_S)
    assert shown(second)[1:] == [(10 + SETTLED_S, "canary", "none")]


def test_other_processes_show_those_of_the_first(tmp_path: Path) -> None:
    file = tmp_path / "marks.json"
    first, other = RoleMarks(file), RoleMarks(file, writes=False)
    other.look(SERVING, 0)
    assert shown(other) == []
    first.look(START, 0)
    first.look(SERVING, 1)
    other.look({**SERVING, "active": "not yet"}, 2)
    assert shown(other) == shown(first) != []


def test_marks_are_bounded_in_time_and_number() -> None:
    marks = RoleMarks()
    for at in range(2 * MOST):
        marks.look({"active": str(at % 7)}, at)
    assert len(marks.marks) == MOST
    marks.look({"active": "last"}, 2 * MOST + KEPT_S)
    assert shown(marks) == [(2 * MOST + KEPT_S, "active", "last")]
