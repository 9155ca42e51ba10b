"""Finds the kind of a service's ids: ``ids`` of its ``GET /readyz``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from loadtest.target import Target, TargetError

if TYPE_CHECKING:
    from feature_store.options import IdKind

TIMEOUT = 2.0  # seconds
KINDS: dict[str, IdKind] = {"numeric": "numeric", "mapped": "mapped"}


def id_kind(target: Target) -> IdKind | None:
    """Ask the service; None if it does not say, as services of other kinds and releases.

    TargetError if the connection is refused: every request of a load would be.
    """
    try:
        _, body = target.call("GET", "/readyz", {}, TIMEOUT)
        return KINDS.get(orjson.loads(body)["ids"])
    except ConnectionRefusedError:
        fault = f"{target.url}: connection refused; is the service running?"
        raise TargetError(fault) from None
    except (OSError, LookupError, TypeError, ValueError):
        return None
