"""Parts of the OpenAPI document that several routes share."""

from __future__ import annotations

from typing import Any

from service.api.problems import MEDIA_TYPE
from service.api.score_models import ProblemDocument


def problem() -> dict[str, Any]:
    return {
        "description": "A problem document (RFC 9457)",
        "content": {MEDIA_TYPE: {"schema": ProblemDocument.model_json_schema()}},
    }
