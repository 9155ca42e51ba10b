"""Cookies of the console's sessions: who may make one, and what ends it."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from service.console import sessions as module
from service.console.sessions import Session, Sessions

KEY = b"a key that all workers share"
TOKENS = [("ann", "ann-has-this-long-token"), ("ben", "ben-has-another-token")]
ADDRESS = "127.0.0.1"


def begun(sessions: Sessions, token: str = TOKENS[0][1]) -> tuple[str, Session]:
    found = sessions.begin(token, ADDRESS)
    assert found is not None
    return found


@pytest.fixture
def sessions() -> Sessions:
    return Sessions(KEY, TOKENS, 60)


@pytest.mark.parametrize(("name", "token"), TOKENS)
def test_a_session_has_the_name_of_its_token(sessions: Sessions, name: str, token: str) -> None:
    cookie, session = begun(sessions, token)
    assert session.name == name
    assert sessions.read(cookie, ADDRESS) == session
    assert token not in cookie


@pytest.mark.parametrize("token", ["", "ann", TOKENS[0][1] + "x", TOKENS[0][1][:-1], "é"])
def test_an_unknown_token_begins_none(sessions: Sessions, token: str) -> None:
    assert sessions.begin(token, ADDRESS) is None


def test_every_worker_with_the_key_reads_it(sessions: Sessions) -> None:
    cookie, session = begun(sessions)
    assert Sessions(KEY, TOKENS, 60).read(cookie, ADDRESS) == session
    assert Sessions(b"another key", TOKENS, 60).read(cookie, ADDRESS) is None


def test_it_ends_with_its_token_and_not_with_another(sessions: Sessions) -> None:
    cookie, _ = begun(sessions)
    assert Sessions(KEY, TOKENS[1:], 60).read(cookie, ADDRESS) is None
    assert Sessions(KEY, TOKENS[:1], 60).read(cookie, ADDRESS) is not None
    renamed = [("ben", TOKENS[0][1])]
    assert Sessions(KEY, renamed, 60).read(cookie, ADDRESS) is not None
    changed = [("ann", "ann-has-a-newer-token-now")]
    assert Sessions(KEY, changed, 60).read(cookie, ADDRESS) is None


def test_it_is_bound_to_the_address_and_the_cookies_name(sessions: Sessions) -> None:
    found = sessions.begin(TOKENS[0][1], ADDRESS, "qin_console_8001")
    assert found is not None
    cookie, session = found
    assert sessions.read(cookie, ADDRESS, "qin_console_8001") == session
    assert sessions.read(cookie, "192.0.2.7", "qin_console_8001") is None
    assert sessions.read(cookie, ADDRESS, "qin_console_9001") is None  # another service's


def test_it_ends_with_its_time(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie, session = begun(sessions)
    monkeypatch.setattr(module, "time", lambda: session.until - 1)
    assert sessions.read(cookie, ADDRESS) == session
    monkeypatch.setattr(module, "time", lambda: session.until)
    assert sessions.read(cookie, ADDRESS) is None


def test_each_session_has_a_csrf_token_of_its_own(sessions: Sessions) -> None:
    assert len({begun(sessions)[1].csrf for _ in range(8)}) == 8


@given(st.text(max_size=80))
def test_what_was_not_signed_is_none(text: str) -> None:
    assert Sessions(KEY, TOKENS, 60).read(text, ADDRESS) is None


MADE = Sessions(KEY, TOKENS, 3600)
COOKIE = begun(MADE)[0]


@given(st.integers(0, len(COOKIE) - 1), st.characters())
def test_a_cookie_with_any_character_changed_is_none(place: int, other: str) -> None:
    assume(other != COOKIE[place])
    assert MADE.read(COOKIE[:place] + other + COOKIE[place + 1 :], ADDRESS) is None
