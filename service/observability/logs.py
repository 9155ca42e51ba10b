"""Structured logs: readable in a terminal, otherwise one JSON object per line."""

from __future__ import annotations

import logging
import os
import sys
from hashlib import blake2b
from typing import Any, Literal

import orjson
import structlog
from structlog.tracebacks import ExceptionDictTransformer

from service.settings import Settings

KEY_BYTES = 32

logger: structlog.stdlib.BoundLogger = structlog.get_logger("service")


def configure(form: Literal["auto", "json", "pretty"], level: str) -> None:
    """Write own log lines and those of libraries to stderr, in the same form."""
    pretty = form == "pretty" or (form == "auto" and sys.stderr.isatty())
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Never the local variables of a traceback: they hold user ids.
    rendering: list[structlog.types.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(serializer=_json),
        ]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Warnings and errors only: the service logs its own start and stop.
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


class Users:
    """Pseudonymises user ids in the log: the same user is recognisable, the id is not readable.

    The digest is keyed, because ids are few enough to be tried one by one. Without a given key
    each process makes its own.
    """

    def __init__(self, settings: Settings) -> None:
        given = settings.log_user_key
        key = os.urandom(KEY_BYTES) if given is None else given.get_secret_value().encode()
        self._key = blake2b(key, digest_size=KEY_BYTES).digest()  # a given key may have any length
        self._plain = settings.log_users == "plain"

    def shown(self, user_id: int | str | None) -> str | int | None:
        if user_id is None or self._plain:
            return user_id
        plain = user_id.encode() if isinstance(user_id, str) else user_id.to_bytes(8, "little")
        return blake2b(plain, digest_size=6, key=self._key).hexdigest()


def _json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=str).decode()
