"""The metadata record of every store: its format, feature schema and kind of ids."""

from __future__ import annotations

from feature_store.errors import StoreCorrupt, StoreMismatch
from feature_store.options import IdKind
from feature_store.schema import FeatureSchema, SchemaError
from feature_store.text_ids import KEY_BYTES, TextIds, new_key

NUMERIC_FORMAT, MAPPED_FORMAT = 1, 2  # releases before text ids refuse a store that has them
STORE_FORMAT = MAPPED_FORMAT


def parse(place: str, version: bytes, text: bytes) -> FeatureSchema:
    """Parse the recorded schema. Raises StoreMismatch for a newer format."""
    if not version.isdigit():
        raise StoreCorrupt(f"{place}: its format record is damaged; load it again")
    if int(version) > STORE_FORMAT:
        raise StoreMismatch(
            f"{place}: written in store format {int(version)}, newer than this program's"
            f" {STORE_FORMAT}; use the release that wrote it"
        )
    try:
        return FeatureSchema.from_yaml(text.decode(), source=f"{place} (schema record)")
    except (SchemaError, UnicodeDecodeError) as error:
        raise StoreCorrupt(f"{place}: its schema record is damaged; load it again") from error


def settled(
    place: str, recorded: FeatureSchema | None, ours: FeatureSchema | None, *, create: bool
) -> FeatureSchema:
    """Choose the schema to use. Raises StoreMismatch if there is none, or two that conflict."""
    if recorded is None and not (create and ours):
        raise StoreMismatch(
            f"{place}: there is no feature store; create one with "
            "`python -m feature_store load` or correct the URL"
        )
    if recorded and ours and (differences := ours.layout_differences(recorded)):
        raise StoreMismatch(
            f"{place}: written for another schema (expected against stored): "
            + "; ".join(differences)
        )
    if ours and recorded and not create:  # a load's schema replaces the recorded one
        return ours.within(recorded)
    chosen = ours or recorded
    assert chosen is not None
    return chosen


def format_of(text_ids: TextIds | None) -> int:
    """The format to record."""
    return NUMERIC_FORMAT if text_ids is None else MAPPED_FORMAT


def settled_ids(
    place: str, version: bytes | None, key: bytes | None, wanted: IdKind | None
) -> TextIds | None:
    """Choose the text ids to use, with the recorded ``key`` or a new one; None for numeric ids.

    ``version``: the recorded format, as ``parse`` accepts it; None for a new store.

    Raises StoreMismatch if the store's kind of ids is not the one ``wanted``.
    """
    if version is None:
        return TextIds(new_key()) if wanted == "mapped" else None
    recorded: IdKind = "mapped" if int(version) == MAPPED_FORMAT else "numeric"
    if wanted not in (None, recorded):
        raise StoreMismatch(
            f"{place}: its ids are {recorded}, not {wanted}, which cannot be changed; "
            "create another store"
        )
    if recorded == "numeric":
        return None
    if key is None or len(key) != KEY_BYTES:
        raise StoreCorrupt(f"{place}: the key of its text ids is damaged; load it again")
    return TextIds(key)
