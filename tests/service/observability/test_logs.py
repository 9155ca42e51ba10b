"""What is written, and what never is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from service.observability import logs
from service.settings import Settings
from tests.logs import restored

SECRET_USER = 998877665544


@pytest.fixture
def configured() -> Iterator[None]:
    """Logging put back as it was."""
    with restored():
        yield


def fail() -> Exception:
    user_id = SECRET_USER
    try:
        raise RuntimeError("at fault")
    except RuntimeError as error:
        assert user_id
        return error


@pytest.mark.parametrize("form", ["json", "pretty"])
def test_a_traceback_is_written_without_the_values_of_its_variables(
    configured: None, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    logs.configure(form, "info")  # type: ignore[arg-type]
    structlog.get_logger("service").error("unexpected error", exc_info=fail())
    said = capsys.readouterr().err
    assert "at fault" in said
    assert "test_logs.py" in said
    assert str(SECRET_USER) not in said


def test_lines_of_libraries_are_json_too(
    configured: None, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure("json", "warning")
    logging.getLogger("uvicorn.error").warning("careful: %s", "wet floor")
    logging.getLogger("uvicorn.error").info("not this")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["event"] == "careful: wet floor"
    assert json.loads(line)["level"] == "warning"


def shown(user_id: int, **chosen: Any) -> Any:
    return logs.Users(Settings(**chosen)).shown(user_id)


def test_a_user_is_recognisable_but_not_readable() -> None:
    users = logs.Users(Settings())
    assert users.shown(SECRET_USER) == users.shown(SECRET_USER)
    assert users.shown(SECRET_USER) != users.shown(SECRET_USER + 1)
    assert str(SECRET_USER) not in str(users.shown(SECRET_USER))


def test_users_are_the_same_for_processes_of_one_key_alone() -> None:
    one, other = "a key of sixteen", "another of sixteen and more than sixty-four characters" * 2
    assert shown(SECRET_USER, log_user_key=one) == shown(SECRET_USER, log_user_key=one)
    assert shown(SECRET_USER, log_user_key=one) != shown(SECRET_USER, log_user_key=other)
    assert shown(SECRET_USER) != shown(SECRET_USER)


def test_users_are_shown_where_that_was_asked_for() -> None:
    assert shown(SECRET_USER, log_users="plain") == SECRET_USER
    assert shown(None, log_users="plain") is None  # type: ignore[arg-type]
