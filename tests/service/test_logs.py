"""What is written, and what never is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from service import logs

SECRET_USER = 998877665544


@pytest.fixture
def configured() -> Iterator[None]:
    """Logging put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


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


def test_a_user_is_recognisable_but_not_readable() -> None:
    assert logs.user_digest(SECRET_USER) == logs.user_digest(SECRET_USER)
    assert logs.user_digest(SECRET_USER) != logs.user_digest(SECRET_USER + 1)
    assert str(SECRET_USER) not in logs.user_digest(SECRET_USER)
