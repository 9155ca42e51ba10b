"""Reads the settings for a command."""

from __future__ import annotations

from typing import Any

import typer
from pydantic import ValidationError

from feature_store.wording import details, reason
from service.settings import PREFIX, Settings


def settings_or_exit(options: dict[str, Any]) -> Settings:
    """Read the settings, options above variables. Invalid ones are lines on stderr and exit
    status 2."""
    try:
        return Settings(**options)
    except ValidationError as error:
        for fault in details(error):
            name = "".join(f"{PREFIX}{field}: ".upper() for field in fault["loc"][:1])
            typer.echo(name + reason(fault), err=True)
        raise typer.Exit(2) from None
