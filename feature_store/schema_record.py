"""The metadata record of every store: its format and feature schema."""

from __future__ import annotations

from feature_store.errors import StoreCorrupt, StoreMismatch
from feature_store.schema import FeatureSchema, SchemaError

STORE_FORMAT = 1


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
