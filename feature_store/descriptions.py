"""Descriptions: the texts of an item by language, which a store keeps where its schema says so."""

from __future__ import annotations

import re
from collections.abc import Mapping

import orjson

from feature_store.errors import StoreCorrupt

Description = Mapping[str, str]  # language -> text
# White space and control characters, and of the format characters those that are never drawn.
NOTHING = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f"
    r"\ufeff\ufff9-\ufffb\U000e0001\U000e0020-\U000e007f]*"
)


def is_blank(text: str) -> bool:
    """Tell whether nothing of a text is to be seen: white space, control and format characters."""
    return text.isspace() or NOTHING.fullmatch(text) is not None


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
