"""``serve --example`` with an encoder: items put in by their words, then scored, as curl commands.

Two items differ by their words alone, so that their scores do.
"""

from __future__ import annotations

from typing import Any

from feature_store.contract import FeatureStore
from feature_store.schema import Categorical, CategoricalList, FeatureSchema
from service.cli.show_request import show_request

NEW = 1_000_000_001  # id of the first; with text ids they are example-1, …
LEVEL = 5  # of other categorical features: of ten popularity levels the middle
TEXTS = (
    "Rätselspiel mit Kacheln. Auf einem Spielbrett werden Kacheln verschoben, bis alle Reihen "
    "gefüllt sind; mit Bestenliste, Musik und vielen Spielstufen für Kinder und Erwachsene.",
    "Bibliothek zum Lesen und Schreiben von Dateien. Entwicklungsdateien und Kopfdateien für "
    "Programme in C, die Dateien in diesem Format bearbeiten.",
)


async def show_text_example(
    store: FeatureStore, feature: str, url: str, key: str | None = None
) -> None:
    """Put two items with German texts at ``url``, score them for a user; print all of it.

    ``feature``: the item feature that the encoder makes of texts. The items replace those of an
    earlier example. ``key``: an API key, which is not printed.
    """
    ids = [NEW + n if store.text_ids is None else f"example-{n + 1}" for n in range(len(TEXTS))]
    for number, (item, text) in enumerate(zip(ids, TEXTS, strict=True)):
        values = _others(store.schema, feature, NEW + number) | {"text": {"de": text}}
        await show_request("PUT", f"{url}/v1/items/{item}", values, key)
    user: Any = 0
    async for histories in store.scan_histories(1):
        user = next(iter(histories))
        break
    if store.text_ids is not None:
        user = (await store.user_texts([user]))[0] or "a new user"
    await show_request("POST", f"{url}/v1/score", {"user_id": user, "candidates": ids}, key)


def _others(schema: FeatureSchema, feature: str, number: int) -> dict[str, Any]:
    """Values of the other features: no tags, middling levels, an index that no model has."""
    values: dict[str, Any] = {}
    for each in schema.stored_item:
        match each:
            case CategoricalList():
                values[each.name] = []
            case Categorical():
                known = min(LEVEL, each.vocabulary - 1)
                values[each.name] = number if each.name == schema.identity else known
            case _:
                values[each.name] = [0.0] * each.size
    del values[feature]
    return values
