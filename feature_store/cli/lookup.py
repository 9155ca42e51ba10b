"""``get-user``, ``get-item``, ``stats``: query a store; ``forget-user``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from pydantic import Field, TypeAdapter, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from feature_store.cli.app import AsJson, StoreUrl, opened, refusals
from feature_store.contract import CORRUPT, FOUND, MAX_ID, MISSING, FeatureStore, ItemBatch
from feature_store.parquet.stored_texts import Id, item_texts, named, printed
from feature_store.text_ids import checked_text, shown
from feature_store.wording import worded

NOT_FOUND = 4  # exit code
NUMBER: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=0, le=MAX_ID)])


@dataclass(frozen=True, slots=True)
class Found:
    """A user as printed."""

    user: Id
    history: list[Id] | None
    lines: list[str]  # the history's ids
    features: dict[str, Any] | None  # None: no record
    fault: str | None  # of the record
    has_features: bool  # whether the schema has user features


def get_user(
    store_url: StoreUrl,
    user_id: Annotated[str, typer.Argument(help="A number; in a mapped store a text.")],
    as_json: AsJson = False,
) -> None:
    """Print a user's stored features, and behaviour history, newest first."""
    with refusals():
        found = asyncio.run(_user(store_url, user_id))
    title = shown(str(found.user))
    if as_json:
        members: dict[str, Any] = {"user_id": found.user, "history": found.history}
        if found.has_features:
            members["features"] = found.features
        typer.echo(orjson.dumps(members))
    else:
        if found.features is not None:
            _print_features(f"user {title}", found.features)
        if found.history is not None:
            typer.echo(f"user {title}: {len(found.history)} items, newest first")
            typer.echo(" ".join(found.lines))
    if found.fault:
        typer.echo(f"error: record of user {title}: {found.fault}; load or put it again", err=True)
        raise typer.Exit(1)
    if found.history is None:
        typer.echo(f"user {title} has no history", err=True)
    if found.has_features and found.features is None:
        typer.echo(f"user {title} has no record", err=True)
    if found.history is None and found.features is None:
        raise typer.Exit(NOT_FOUND)


async def _user(url: str, user_id: str) -> Found:
    async with opened(url) as store:
        identity, number = _checked(store, user_id, "user_id")
        user = await store.user(number)
        if user.history_fault is not None:
            raise user.history_fault
        fault = None
        if user.status not in (FOUND, MISSING):
            fault = await store.user_fault(number)
        names = store.schema.user_dtype.names or ()
        features = {name: user.row[name][0].tolist() for name in names}
        history = np.zeros(0, np.int64) if user.history is None else user.history
        items = named(history.tolist(), await item_texts(store, history))
        return Found(
            identity,
            None if user.history is None else items,
            [printed(store, item) for item in items],
            features if user.status == FOUND else None,
            fault,
            bool(names),
        )


def forget_user(
    store_url: StoreUrl,
    user_id: Annotated[str, typer.Argument(help="A number; in a mapped store a text.")],
    as_json: AsJson = False,
) -> None:
    """Erase a user: record, history, text id and idempotency keys.

    Exit code: 0, erased; 4, there was nothing; 1, failed.
    """

    async def ask() -> tuple[Id, bool]:
        async with opened(store_url, create=True) as store:  # to write; it is not created
            identity, number = _checked(store, user_id, "user_id")
            [kept] = await store.user_texts([number])
            if kept not in (None, identity):  # another text has this number
                return identity, False
            return identity, await store.forget_user(number)

    with refusals():
        user, existed = asyncio.run(ask())
    title = shown(str(user))
    if as_json:
        typer.echo(orjson.dumps({"user_id": user, "forgotten": existed}))
    elif existed:
        typer.echo(f"user {title}: record, history and idempotency keys erased")
    if not existed:
        typer.echo(f"user {title} is not in the store", err=True)
        raise typer.Exit(NOT_FOUND)


def get_item(
    store_url: StoreUrl,
    item_id: Annotated[str, typer.Argument(help="A number; in a mapped store a text.")],
    as_json: AsJson = False,
) -> None:
    """Print an item's stored features."""

    async def ask() -> tuple[Id, ItemBatch, str | None, tuple[str, ...], dict[str, str]]:
        async with opened(store_url) as store:
            identity, number = _checked(store, item_id, "item_id")
            batch = await store.items(np.array([number], np.int64))
            names = store.schema.item_dtype.names or ()
            [texts] = await store.descriptions(batch.ids)
            return identity, batch, await store.fault(number), names, texts

    with refusals():
        item, batch, fault, names, texts = asyncio.run(ask())
    title, rows, status = shown(str(item)), batch.rows, int(batch.status[0])
    if status == MISSING:
        typer.echo(f"item {title} is not in the store", err=True)
        raise typer.Exit(NOT_FOUND)
    if status == CORRUPT:
        typer.echo(f"error: item {title}: {fault}; load or put it again", err=True)
        raise typer.Exit(1)
    features: dict[str, Any] = {name: rows[name][0].tolist() for name in names}
    origins = batch.contents.digests(0) if batch.contents else []
    if as_json:
        more = {"contents": origins, "text": texts}
        known = {name: value for name, value in more.items() if value}
        typer.echo(orjson.dumps({"item_id": item, "features": features, **known}))
        return
    if batch.contents:
        vectors = ", ".join(origin or "given" for origin in origins)
        features[f"{batch.contents.feature}, vectors"] = vectors
    features |= {f"text, {language}": shown(text) for language, text in sorted(texts.items())}
    _print_features(f"item {title}", features)


def _print_features(title: str, features: Mapping[str, Any]) -> None:
    table = Table("feature", "value", title=Text(title), title_justify="left")
    for name, value in features.items():
        table.add_row(name, Text(_short(value)))
    Console().print(table)


def _checked(store: FeatureStore, text: str, name: str) -> tuple[Id, int]:
    """Return the id given as an argument, and its number. Raises BadParameter."""
    try:
        if store.text_ids is not None:
            return checked_text(text, "text id"), store.text_ids.number(text)
        number = NUMBER.validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(worded(error), param_hint=f"'{name}'") from error
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
                **({"users": await store.count_users()} if store.schema.user else {}),
                **await store.describe(),
            }

    with refusals():
        values = asyncio.run(ask())
    if as_json:
        typer.echo(orjson.dumps(values))
        return
    table = Table("", "", show_header=False)
    for name, value in values.items():
        table.add_row(
            name.replace("_", " "), f"{value:,}" if isinstance(value, int) else Text(value)
        )
    Console().print(table)


def _short(value: Any) -> str:
    if not isinstance(value, list) or len(value) <= 8:
        return str(value)
    head = ", ".join(f"{v:.4g}" for v in value[:6])
    return f"[{head}, … {len(value)} values]"
