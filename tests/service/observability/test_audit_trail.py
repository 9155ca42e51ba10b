"""The audit list: its file, what a full disk leaves, and how large it grows."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.observability import audit_trail as module
from service.observability.audit_trail import AuditTrail
from service.observability.background import failures


def actions(trail: AuditTrail, version: str | None = None) -> list[str]:
    return [entry["action"] for entry in trail.latest(version)]


def test_the_latest_come_first_and_of_one_version_its_own(tmp_path: Path) -> None:
    trail = AuditTrail(tmp_path / "audit.jsonl")
    assert actions(trail) == []
    trail.add(action="load", who="ann", model_version="a")
    AuditTrail(tmp_path / "audit.jsonl").add(action="login", who="ben")  # another worker
    trail.add(action="unload", who="ann", model_version="b")
    assert actions(trail) == ["unload", "login", "load"]
    assert actions(trail, "a") == ["load"]


def test_the_file_is_put_aside_when_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    trail = AuditTrail(tmp_path / "audit.jsonl")
    for number in range(100):
        trail.add(action=str(number))
    sizes = [file.stat().st_size for file in tmp_path.iterdir()]
    assert len(sizes) <= 2
    assert max(sizes) < 1200
    assert actions(trail)[:3] == ["99", "98", "97"]


def test_lines_that_are_none_are_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    trail = AuditTrail(file)
    trail.add(action="one")
    with file.open("ab") as broken:
        broken.write(b'{"cut short\n[1]\n\xff\n')
    trail.add(action="two")
    assert actions(trail) == ["two", "one"]


def test_without_a_file_this_process_remembers(tmp_path: Path) -> None:
    before = failures()["other"]
    trail = AuditTrail(tmp_path / "missing" / "audit.jsonl")
    trail.add(action="load")
    assert actions(trail) == ["load"]
    assert failures()["other"] == before + 1


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").symlink_to(tmp_path / "elsewhere")
    trail = AuditTrail(tmp_path / "audit.jsonl")
    trail.add(action="load")
    assert not (tmp_path / "elsewhere").exists()
