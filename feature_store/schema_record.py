"""The record in every store that says what it holds: a store format and a feature schema."""

from __future__ import annotations

from feature_store.errors import StoreCorrupt, StoreMismatch
from feature_store.schema import FeatureSchema, SchemaError

STORE_FORMAT = 1


def parse(place: str, version: bytes, text: bytes) -> FeatureSchema:
    """The recorded schema. StoreMismatch for a format that this program cannot read."""
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
    """The schema to work with. StoreMismatch when there is none, or two that disagree."""
    if recorded is None and not (create and ours):
        raise StoreMismatch(
            f"{place}: there is no feature store; make one with "
            "`python -m feature_store load` or mend the URL"
        )
    if recorded and ours and (differences := ours.layout_differences(recorded)):
        raise StoreMismatch(
            f"{place}: written for another schema (ours against the store's): "
            + "; ".join(differences)
        )
    if ours and recorded and not create:  # a load's own schema is recorded, and decides
        return ours.within(recorded)
    chosen = ours or recorded
    assert chosen is not None
    return chosen
