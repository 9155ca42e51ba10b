"""``get-user``, ``get-item``, ``stats``: query a store."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from rich.console import Console
from rich.table import Table

from feature_store.cli.app import AsJson, StoreUrl, opened, refusals
from feature_store.contract import CORRUPT, MAX_ID, MISSING, ItemRows

NOT_FOUND = 4  # exit code


def get_user(
    store_url: StoreUrl,
    user_id: Annotated[int, typer.Argument(min=0, max=MAX_ID)],
    as_json: AsJson = False,
) -> None:
    """Print a user's behaviour history, newest first."""

    async def ask() -> list[int] | None:
        async with opened(store_url) as store:
            found = await store.history(user_id)
            return None if found is None else found.tolist()

    with refusals():
        history = asyncio.run(ask())
    if as_json:
        typer.echo(orjson.dumps({"user_id": user_id, "history": history}))
    elif history is not None:
        typer.echo(f"user {user_id}: {len(history)} items, newest first")
        typer.echo(" ".join(map(str, history)))
    if history is None:
        typer.echo(f"user {user_id} has no history", err=True)
        raise typer.Exit(NOT_FOUND)


def get_item(
    store_url: StoreUrl,
    item_id: Annotated[int, typer.Argument(min=0, max=MAX_ID)],
    as_json: AsJson = False,
) -> None:
    """Print an item's stored features."""

    async def ask() -> tuple[int, ItemRows, str | None, tuple[str, ...]]:
        async with opened(store_url) as store:
            batch = await store.items(np.array([item_id], np.int64))
            names = store.schema.item_dtype.names or ()
            return int(batch.status[0]), batch.rows, await store.fault(item_id), names

    with refusals():
        status, rows, fault, names = asyncio.run(ask())
    if status == MISSING:
        typer.echo(f"item {item_id} is not in the store", err=True)
        raise typer.Exit(NOT_FOUND)
    if status == CORRUPT:
        typer.echo(f"error: item {item_id}: {fault}; load or put it again", err=True)
        raise typer.Exit(1)
    features: dict[str, Any] = {name: rows[name][0].tolist() for name in names}
    if as_json:
        typer.echo(orjson.dumps({"item_id": item_id, "features": features}))
        return
    table = Table("feature", "value", title=f"item {item_id}", title_justify="left")
    for name, value in features.items():
        table.add_row(name, _short(value))
    Console().print(table)


def stats(store_url: StoreUrl, as_json: AsJson = False) -> None:
    """Print a store's sizes, schema and durability."""

    async def ask() -> dict[str, str | int]:
        async with opened(store_url) as store:
            return {
                "schema": store.schema.name,
                "history_length": store.schema.history_length,
                "items": await store.count_items(),
                "histories": await store.count_histories(),
                **await store.describe(),
            }

    with refusals():
        values = asyncio.run(ask())
    if as_json:
        typer.echo(orjson.dumps(values))
        return
    table = Table("", "", show_header=False)
    for name, value in values.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else value)
    Console().print(table)


def _short(value: Any) -> str:
    if not isinstance(value, list) or len(value) <= 8:
        return str(value)
    head = ", ".join(f"{v:.4g}" for v in value[:6])
    return f"[{head}, … {len(value)} values]"
