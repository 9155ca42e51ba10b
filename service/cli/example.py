"""One real request and its real answer, printed for a person to paste and change."""

from __future__ import annotations

import asyncio
import urllib.request

import orjson
import typer

from feature_store.contract import FeatureStore

CANDIDATES = 5
JSON = "Content-Type: application/json"
KEY = '-H "Authorization: Bearer $QIN_API_KEY"'


async def show_example(store: FeatureStore, url: str, key: str | None = None) -> None:
    """Ask the service at ``url`` about a user and items of ``store``; print question and answer.

    ``key``: an API key, which is used and not printed.
    """
    query = await _query(store)
    if query is None:
        typer.echo("The store holds no items yet: python -m feature_store load --help")
        return
    body = orjson.dumps(query)
    answer = await asyncio.to_thread(_ask, f"{url}/v1/score", body, key)
    with_key = f" {KEY}" if key else ""
    typer.echo(f"\ncurl -s {url}/v1/score{with_key} -H '{JSON}' -d '{body.decode()}'\n\n{answer}\n")


async def _query(store: FeatureStore) -> dict[str, object] | None:
    """A user with a history and some items; None for an empty store."""
    user = 0
    async for histories in store.scan_histories(1):
        user = next(iter(histories))
        break
    async for batch in store.scan_items(CANDIDATES):
        return {"user_id": user, "candidates": batch.ids[:CANDIDATES].tolist()}
    return None


def _ask(url: str, body: bytes, key: str | None) -> str:
    name, value = JSON.split(": ")
    headers = {name: value} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, body, headers)  # noqa: S310 — our own address
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=10) as response:
        content: bytes = response.read()
    return content.decode()
