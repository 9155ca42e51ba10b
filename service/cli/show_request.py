"""Sends a request to the running service; prints it as a curl command, and its answer."""

from __future__ import annotations

import asyncio
import shlex
import urllib.request
from typing import Any

import orjson
import typer

JSON = "Content-Type: application/json"
KEY = '-H "Authorization: Bearer $QIN_API_KEY"'


async def show_request(method: str, url: str, content: dict[str, Any], key: str | None) -> None:
    """Send and print. ``key``: an API key, which is not printed.

    Raises HTTPError for any status but success.
    """
    body = orjson.dumps(content)
    answer = await asyncio.to_thread(_send, method, url, body, key)
    verb = "" if method == "POST" else f" -X {method}"
    with_key = f" {KEY}" if key else ""
    data = shlex.quote(body.decode())
    typer.echo(f"\ncurl -s{verb} {url}{with_key} -H '{JSON}' -d {data}\n\n{answer}\n")


def _send(method: str, url: str, body: bytes, key: str | None) -> str:
    """The answer's content, or its status where it has none."""
    name, value = JSON.split(": ")
    headers = {name: value} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, body, headers, method=method)  # noqa: S310 — this service
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=10) as response:
        content: bytes = response.read()
        return content.decode() or f"{response.status} {response.reason}"
