"""The audit log of the admin port: one line per action, with caller and outcome."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from starlette.requests import Request

from service.errors import ServiceError
from service.observability.logs import logger


@contextmanager
def audited(request: Request, action: str, **fields: object) -> Iterator[dict[str, object]]:
    """Log one line ``admin`` for the block, with what it puts into the dict."""
    began, entry = perf_counter(), {"who": "nobody", "outcome": "failed", **fields}
    try:
        yield entry
        entry["outcome"] = "done"
    except ServiceError as error:
        entry["outcome"] = error.slug
        raise
    finally:
        address = request.client and request.client.host
        ms = round(1e3 * (perf_counter() - began), 1)
        logger.info("admin", address=address, action=action, ms=ms, **entry)
