"""Reads forms of the console's pages."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request

from service.api.body import read_body
from service.context import context_of
from service.errors import InvalidField

MOST_BYTES, MOST_FIELDS = 65_536, 64


async def read_form(request: Request) -> dict[str, str]:
    """Read a form; of a field given twice, the last counts. InvalidField, TooLarge."""
    body = await read_body(context_of(request.scope), request, MOST_BYTES)
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidField("body: should be a form") from None
    return {name: values[-1] for name, values in fields.items()}
