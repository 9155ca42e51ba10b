"""``serve --example``: one request to the running service as a curl command, and its answer."""

from __future__ import annotations

import asyncio
import shlex
import urllib.request
from collections.abc import Sequence

import orjson
import typer

from feature_store.contract import FeatureStore
from feature_store.schema import Numeric, RequestFeature

CANDIDATES = 5
NUMBER, INDEX = 12.0, 1  # of a request feature; every vocabulary has index 1
JSON = "Content-Type: application/json"
KEY = '-H "Authorization: Bearer $QIN_API_KEY"'


async def show_example(
    store: FeatureStore, features: Sequence[RequestFeature], url: str, key: str | None = None
) -> None:
    """Send a request for a user and items of ``store`` to ``url``; print both.

    ``features``: request features of the model. ``key``: an API key, which is not printed.
    """
    request = await _request(store)
    if request is None:
        typer.echo("The store holds no items yet: python -m feature_store load --help")
        return
    if features:
        request["features"] = {
            f.name: NUMBER if isinstance(f, Numeric) else INDEX for f in features
        }
    body = orjson.dumps(request)
    answer = await asyncio.to_thread(_send, f"{url}/v1/score", body, key)
    with_key = f" {KEY}" if key else ""
    data = shlex.quote(body.decode())
    typer.echo(f"\ncurl -s {url}/v1/score{with_key} -H '{JSON}' -d {data}\n\n{answer}\n")


async def _request(store: FeatureStore) -> dict[str, object] | None:
    """A user with a history, and some items; None if the store is empty."""
    user = 0
    async for histories in store.scan_histories(1):
        user = next(iter(histories))
        break
    async for batch in store.scan_items(CANDIDATES):
        ids = batch.ids[:CANDIDATES]
        if store.text_ids is None:
            return {"user_id": user, "candidates": ids.tolist()}
        (text,) = await store.user_texts([user])
        texts = [text for text in await store.item_texts(ids) if text is not None]
        return {"user_id": text or "a new user", "candidates": texts}
    return None


def _send(url: str, body: bytes, key: str | None) -> str:
    name, value = JSON.split(": ")
    headers = {name: value} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(url, body, headers)  # noqa: S310 — this service's URL
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=10) as response:
        content: bytes = response.read()
    return content.decode()
