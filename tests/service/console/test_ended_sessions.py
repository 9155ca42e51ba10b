"""Sessions that were logged out: refused by every worker, bounded, and kept over restarts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from service.console import ended_sessions as module
from service.console.ended_sessions import EndedSessions
from service.console.sessions import Session


def session(nonce: str, began: float = 0.0, until: float = 60.0) -> Session:
    now = time.time()
    return Session("ann", now + began, now + until, nonce, "csrf")


def test_another_worker_and_a_later_process_refuse_it(tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    one, other = session("one"), session("other")
    EndedSessions(folder).add(one)
    later = EndedSessions(folder)
    assert later.has(one)
    assert not later.has(other)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_those_that_are_over_are_dropped(tmp_path: Path) -> None:
    ended = EndedSessions(tmp_path / "sessions")
    for number in range(5):
        ended.add(session(f"over-{number}", began=-90, until=-30))
    ended.add(session("last"))
    assert len(list((tmp_path / "sessions").iterdir())) == 1


def test_beyond_a_number_all_sessions_so_far_end_and_later_ones_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 3)
    ended, others = EndedSessions(tmp_path / "sessions"), [session("still open", began=-5)]
    for number in range(4):
        others.append(session(f"{number}", began=-4))
        ended.add(others[-1])
    assert all(ended.has(one) for one in others)
    assert not ended.has(session("after", began=2))
    assert len(list((tmp_path / "sessions").iterdir())) <= 3
    late = session("late", began=-3)  # its own log-out changes nothing
    ended.add(late)
    assert ended.has(late)


def test_what_cannot_be_looked_up_counts_as_ended(tmp_path: Path) -> None:
    (tmp_path / "sessions").write_text("a file in the folder's place")
    assert EndedSessions(tmp_path / "sessions").has(session("one"))


def test_a_log_out_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sessions").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        EndedSessions(tmp_path / "sessions").add(session("one"))
    assert os.listdir(tmp_path) == ["sessions"]
