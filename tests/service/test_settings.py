"""Settings as a container's environment gives them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

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
