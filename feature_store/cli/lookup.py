"""``get-user``, ``get-item``, ``stats``: query a store."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from pydantic import Field, TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feature_store.cli.app import AsJson, StoreUrl, opened, refusals
from feature_store.contract import CORRUPT, MAX_ID, MISSING, FeatureStore, ItemRows
from feature_store.parquet.stored_texts import Id, item_texts, named, printed
from feature_store.text_ids import checked_text, shown

NOT_FOUND = 4  # exit code
NUMBER: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=0, le=MAX_ID)])


def get_user(
    store_url: StoreUrl,
    user_id: Annotated[str, typer.Argument(help="A number; in a mapped store a text.")],
    as_json: AsJson = False,
) -> None:
    """Print a user's behaviour history, newest first."""

    async def ask() -> tuple[Id, list[Id] | None, list[str]]:
        async with opened(store_url) as store:
            identity, number = _checked(store, user_id, "user_id")
            found = await store.history(number)
            if found is None:
                return identity, None, []
            items = named(found.tolist(), await item_texts(store, found))
            return identity, items, [printed(store, item) for item in items]

    with refusals():
        user, history, lines = asyncio.run(ask())
    title = shown(str(user))
    if as_json:
        typer.echo(orjson.dumps({"user_id": user, "history": history}))
    elif history is not None:
        typer.echo(f"user {title}: {len(history)} items, newest first")
        typer.echo(" ".join(lines))
    if history is None:
        typer.echo(f"user {title} has no history", err=True)
        raise typer.Exit(NOT_FOUND)


def get_item(
    store_url: StoreUrl,
    item_id: Annotated[str, typer.Argument(help="A number; in a mapped store a text.")],
    as_json: AsJson = False,
) -> None:
    """Print an item's stored features."""

    async def ask() -> tuple[Id, int, ItemRows, str | None, tuple[str, ...]]:
        async with opened(store_url) as store:
            identity, number = _checked(store, item_id, "item_id")
            batch = await store.items(np.array([number], np.int64))
            names = store.schema.item_dtype.names or ()
            return identity, int(batch.status[0]), batch.rows, await store.fault(number), names

    with refusals():
        item, status, rows, fault, names = asyncio.run(ask())
    title = shown(str(item))
    if status == MISSING:
        typer.echo(f"item {title} is not in the store", err=True)
        raise typer.Exit(NOT_FOUND)
    if status == CORRUPT:
        typer.echo(f"error: item {title}: {fault}; load or put it again", err=True)
        raise typer.Exit(1)
    features: dict[str, Any] = {name: rows[name][0].tolist() for name in names}
    if as_json:
        typer.echo(orjson.dumps({"item_id": item, "features": features}))
        return
    table = Table("feature", "value", title=Text(f"item {title}"), title_justify="left")
    for name, value in features.items():
        table.add_row(name, _short(value))
    Console().print(table)


def _checked(store: FeatureStore, text: str, name: str) -> tuple[Id, int]:
    """Return the id given as an argument, and its number. Raises BadParameter."""
    try:
        if store.text_ids is not None:
            return checked_text(text, "text id"), store.text_ids.number(text)
        number = NUMBER.validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"], param_hint=f"'{name}'") from error
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=f"'{name}'") from error
    return number, number


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
