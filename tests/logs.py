"""Logs of commands that run in the tests' process, which leave its logging as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from service.observability import logs


@contextmanager
def restored() -> Iterator[None]:
    """Put logging back at the end of the block."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


def configure(form: Any, level: str) -> None:
    """Configure as the service does, without a cache: cached loggers would outlast ``restored``."""
    logs.configure(form, level)
    structlog.configure(cache_logger_on_first_use=False)
