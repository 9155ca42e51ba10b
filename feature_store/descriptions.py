"""Descriptions: the texts of an item by language, which a store keeps where its schema says so."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from feature_store.errors import StoreCorrupt

Description = Mapping[str, str]  # language -> text


def encode_description(description: Description) -> bytes:
    """Encode to JSON: the same bytes for the same texts."""
    return orjson.dumps(dict(description), option=orjson.OPT_SORT_KEYS)


def decode_description(item: int, record: bytes | None) -> dict[str, str]:
    """Decode; empty for None. Raises StoreCorrupt, which names the item."""
    if record is None:
        return {}
    try:
        found = orjson.loads(record)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise StoreCorrupt(f"texts of item {item}: damaged; put them again")
    return found
