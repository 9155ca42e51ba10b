"""Settings as a container's environment gives them."""

from __future__ import annotations

import pytest
import typer
from pydantic import ValidationError

from service.cli.settings import settings_or_exit
from service.settings import PREFIX, Settings

EVERY = [f"{PREFIX}{name}".upper() for name in Settings.model_fields]


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in EVERY:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", EVERY)
def test_an_empty_variable_is_not_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose makes one of ``${VAR:-}``."""
    defaults = Settings()
    monkeypatch.setenv(name, "")
    assert Settings() == defaults


def test_a_fleet_called_alone_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QIN_FLEET", "alone")
    assert Settings().fleet == ""


@pytest.mark.parametrize("option", ["store", "host"])
def test_an_empty_option_is_refused(option: str) -> None:
    """Passed on to workers as a variable, it would be the default there."""
    with pytest.raises(ValidationError, match="at least 1 character"):
        Settings(**{option: ""})


def test_invalid_settings_are_a_line_each_in_our_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"PORT": "http", "WORKERS": "0", "LOG_FORMAT": "xml", "KEEP_PREVIOUS": "perhaps"}
    for name, value in given.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)
    with pytest.raises(typer.Exit) as left:
        settings_or_exit({})
    assert left.value.exit_code == 2
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "QIN_KEEP_PREVIOUS: neither true nor false",
        "QIN_LOG_FORMAT: must be 'auto', 'json' or 'pretty'",
        "QIN_PORT: not an integer",
        "QIN_WORKERS: must be at least 1",
    ]
    for name in given:
        monkeypatch.delenv(f"{PREFIX}{name}")
    monkeypatch.setenv(f"{PREFIX}API_KEYS", "no-name")
    with pytest.raises(typer.Exit):
        settings_or_exit({})
    assert capsys.readouterr().err.startswith("QIN_API_KEYS: each is NAME:KEY")
