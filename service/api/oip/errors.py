"""What a refusal looks like to a client of the protocol: ``{"error": "…"}``, and a status.

The status is the one of the service everywhere else, but for 422: what is wrong with a request is
400 in this protocol. Headers (Retry-After, say) are the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from starlette.responses import Response

ROOT = "/v2"


def is_oip(path: str) -> bool:
    return path == ROOT or path.startswith(f"{ROOT}/")


def error_response(status: int, detail: str, headers: Mapping[str, str]) -> Response:
    return Response(
        orjson.dumps({"error": detail}),
        400 if status == 422 else status,
        dict(headers),
        media_type="application/json",
    )
