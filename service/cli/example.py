"""``serve --example``: a request as a curl command, its answer, and what to open next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from feature_store.contract import FeatureStore
from feature_store.schema import Numeric, RequestFeature
from service.cli.next_steps import show_next_steps
from service.cli.show_request import show_request
from service.cli.text_example import show_text_example

CANDIDATES = 5
NUMBER, INDEX = 12.0, 1  # of a request feature; every vocabulary has index 1


async def show_example(
    store: FeatureStore,
    features: Sequence[RequestFeature],
    url: str,
    key: str | None = None,
    of_texts: str | None = None,
    console: str | None = None,
) -> None:
    """Send a request for a user and items of ``store`` to ``url``; print both, and next steps.

    ``features``: request features of the model. ``key``: an API key, which is not printed.
    ``of_texts``: an item feature that texts may stand for: then items are put in by their texts.
    ``console``: its URL, if it is on.
    """
    await _show_requests(store, features, url, key, of_texts)
    show_next_steps(url, console)


async def _show_requests(
    store: FeatureStore,
    features: Sequence[RequestFeature],
    url: str,
    key: str | None,
    of_texts: str | None,
) -> None:
    request = await _request(store)
    if request is None:
        typer.echo("The store holds no items yet: python -m feature_store load --help")
        return
    if features:
        request["features"] = {
            f.name: NUMBER if isinstance(f, Numeric) else INDEX for f in features
        }
    await show_request("POST", f"{url}/v1/score", request, key)
    if of_texts is not None:
        await show_text_example(store, of_texts, url, key)


async def _request(store: FeatureStore) -> dict[str, Any] | None:
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
