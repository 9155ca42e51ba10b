"""The metadata record of every store: its format, feature schema and kind of ids."""

from __future__ import annotations

import math
import time

from feature_store.errors import ContentMismatch, StoreCorrupt, StoreMismatch
from feature_store.options import IdKind
from feature_store.schema import Categorical, FeatureSchema, SchemaError
from feature_store.text_ids import KEY_BYTES, TextIds, new_key

# Earlier releases refuse what they cannot read: text ids, user features, contents of texts, texts.
MAPPED, USERS, CONTENTS, DESCRIPTIONS = 1, 2, 4, 8  # added to format 1
STORE_FORMAT = 1 + MAPPED + USERS + CONTENTS + DESCRIPTIONS
REFRESH_EVERY_S = 1.0


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
    """Choose the schema to use: that of the records, with the sizes of ``ours``.

    Raises StoreMismatch if there is none, or if ``ours`` cannot be served or loaded.
    """
    if recorded is None and not (create and ours):
        raise StoreMismatch(
            f"{place}: there is no feature store; create one with "
            "`python -m feature_store load` or correct the URL"
        )
    if recorded is None:
        assert ours is not None
        return _stored(ours)
    if ours is None:
        return recorded
    if differences := _conflicts(ours, recorded, create):
        remedy = "load another store" if create else "use a store that was loaded"
        raise StoreMismatch(
            f"{place}: does not fit the schema {ours.name!r}: {'; '.join(differences)}; "
            f"{remedy} with it (`python -m feature_store load STORE --schema FILE`)"
        )
    adopted = _adopted(ours, recorded)
    if create:
        return adopted
    return adopted.within(recorded).model_copy(update={"descriptions": recorded.descriptions})


def _conflicts(ours: FeatureSchema, recorded: FeatureSchema, create: bool) -> list[str]:
    """List what keeps the store from serving ``ours``; from being loaded with it, if ``create``.

    A load writes whole items, so it has every item feature; it may add user features.
    """
    if not create:
        return ours.unserved_by(recorded)
    users, items = ({f.name for f in fs} for fs in (recorded.user, ours.stored_item))
    known = ours.model_copy(update={"user": tuple(f for f in ours.user if f.name in users)})
    differences = known.unserved_by(recorded)
    if ours.identity != recorded.identity:
        differences.insert(
            0, f"identity: {ours.identity!r} against the store's {recorded.identity!r}"
        )
    alone = (f.name for f in recorded.stored_item if f.name not in items)
    return [*differences, *(f"item.{name}: in the store alone" for name in alone)]


def _adopted(ours: FeatureSchema, recorded: FeatureSchema) -> FeatureSchema:
    """The recorded schema with the sizes of ``ours`` and its further user features.

    Roles and order of the item features stay: records have their layout.
    """
    items = {f.name: f for f in ours.stored_item}
    users = {f.name: f for f in (*recorded.user, *ours.user)}  # the recorded come first
    return FeatureSchema(
        name=ours.name,
        history_length=ours.history_length,
        item=tuple(items.get(f.name, f) for f in recorded.item),
        identity=recorded.identity,
        context=tuple(
            c for f in recorded.context if isinstance(c := items.get(f.name, f), Categorical)
        ),
        user=tuple(users.values()),
        user_identity=ours.user_identity or recorded.user_identity,
        descriptions=ours.descriptions or recorded.descriptions,
    )


def _stored(schema: FeatureSchema) -> FeatureSchema:
    """The stored part of a schema: no request features, and none twice.

    Its record layout is the same, and without user features earlier releases read it.
    """
    return FeatureSchema(
        name=schema.name,
        history_length=schema.history_length,
        item=schema.item,
        identity=schema.identity,
        context=tuple(f for f in schema.context if f.name not in schema.shared),
        user=schema.user,
        user_identity=schema.user_identity,
        descriptions=schema.descriptions,
    )


def format_of(schema: FeatureSchema, text_ids: TextIds | None, version: bytes | None) -> int:
    """The format to record; ``version``: the one that is recorded."""
    recorded = int(version) - 1 if version and version.isdigit() else 0
    return (
        1
        + MAPPED * (text_ids is not None)
        + USERS * bool(schema.user)
        + (recorded & CONTENTS)
        + DESCRIPTIONS * schema.descriptions
    )


def has_contents(version: bytes) -> bool:
    """Whether a recorded format is of a store that may have contents."""
    return bool(int(version) - 1 & CONTENTS)


def no_descriptions(place: str) -> StoreMismatch:
    """Return the error of a store that keeps no texts."""
    return StoreMismatch(
        f"{place}: keeps no texts of items; load it once with `descriptions: true` in the schema"
    )


def check_content(place: str, recorded: bytes | None, feature: str) -> None:
    """Raise ContentMismatch if the store has contents of another feature."""
    if recorded not in (None, feature.encode()):
        assert recorded is not None
        raise ContentMismatch(
            f"{place}: has contents of {recorded.decode(errors='replace')}, not of {feature}: "
            "a store has those of one feature"
        )


def settled_ids(
    place: str, version: bytes | None, key: bytes | None, wanted: IdKind | None
) -> TextIds | None:
    """Choose the text ids to use, with the recorded ``key`` or a new one; None for numeric ids.

    ``version``: the recorded format, as ``parse`` accepts it; None for a new store.

    Raises StoreMismatch if the store's kind of ids is not the one ``wanted``.
    """
    if version is None:
        return TextIds(new_key()) if wanted == "mapped" else None
    recorded: IdKind = "mapped" if int(version) - 1 & MAPPED else "numeric"
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


class RefreshPace:
    """Allows one refresh of the schema a second: a record may stay STALE."""

    def __init__(self) -> None:
        self._last = -math.inf

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < REFRESH_EVERY_S:
            return False
        self._last = now
        return True
