"""``/v1/items/{item_id}``: reads and writes an item's features by name."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.contents import Contents as StoredContents
from feature_store.contract import CORRUPT, FOUND, Ids, ItemRows
from feature_store.feature_values import FeatureValueError, item_row, set_values, values_of
from feature_store.schema import Categorical, CategoricalList, Dense, FeatureSchema, Stored
from service.api.body import Contents
from service.api.id_kind import COLLISION, IdKind, Item
from service.api.item_text import ItemTexts
from service.context import RequestContext
from service.errors import InvalidField, ItemUnreadable, UnknownItem
from service.items.store_client import StoreReader
from service.lifecycle.item_refresh import ItemRefresher

if TYPE_CHECKING:
    from service.encoding.item_content import ItemContent  # takes an extra

Values = dict[str, Any]  # feature -> value
DIGITS_A_NUMBER = 64  # clients may write more digits than a float has


class CatalogueItems:
    """Reads and writes items. A write is visible to the next answer of each process that shares the
    item table, and in other processes within a second."""

    def __init__(
        self, store: StoreReader, refresher: ItemRefresher, ids: IdKind, texts: ItemTexts
    ) -> None:
        self._store, self._refresher, self._ids = store, refresher, ids
        self._schema, self._texts = store.store.schema, texts

    async def contents(self) -> Contents:
        """Bounds of a valid body."""
        return self._texts.bounds(contents_of(self._schema.stored_item))

    async def read(self, item: Item) -> Values:
        batch = await self._store.items(_one(item.number))
        if batch.status[0] == CORRUPT:
            why = await self._store.store.fault(item.number)
            raise ItemUnreadable(f"item {item.given!r}: {why}; PUT it whole")
        if batch.status[0] != FOUND:
            raise UnknownItem(f"item {item.given!r}: not in the store")
        return values_of(self._schema.stored_item, batch.rows)

    async def put(self, item: Item, values: Values, ctx: RequestContext) -> Values | None:
        """Replace an item. Every feature must be given, or what the encoder makes it of: then
        return what was written."""
        words = self._texts.take(values, self._texts.active)
        if words is not None:  # the other features are checked before the texts are encoded
            values[words.feature.name] = [0.0] * words.feature.size
        with naming_features():
            row = item_row(self._schema, values)
        content = None if words is None else await self._texts.encode(words, ctx)
        contents = None
        if words is not None and content is not None:
            _set(words.feature, row, content)
            contents = StoredContents.all_of(content.origin, 1, row.dtype)
        if isinstance(item.given, str) and await self._ids.name([(item.number, item.given)]):
            raise InvalidField.of("item_id", detail=COLLISION)
        async with self._refresher.writing(_one(item.number)):
            await self._store.put_item(_one(item.number), row, contents)
            await self._store.put_descriptions(item.number, words.texts if words else {})
        return None if content is None else self._written(item, row, content)

    async def patch(self, item: Item, values: Values, ctx: RequestContext) -> Values | None:
        """Change the given features, and that of texts; of texts, return what was written.
        The feature of texts, given itself, removes those that were kept."""
        if not values:
            raise InvalidField.of("body", detail="give at least one feature")
        words = self._texts.take(values, self._texts.active)
        with naming_features():  # before the store is asked
            set_values(self._schema.stored_item, np.zeros(1, self._schema.item_dtype), values)
        content = None if words is None else await self._texts.encode(words, ctx)
        after = np.zeros(1, self._schema.item_dtype)
        if words is not None and content is not None:
            _set(words.feature, after, content)

        def change(row: ItemRows) -> None:
            set_values(self._schema.stored_item, row, values)
            if words is not None and content is not None:
                _set(words.feature, row, content)
            after[:] = row

        origin = None if content is None else content.origin
        async with self._refresher.writing(_one(item.number)):
            found = await self._store.patch_item(item.number, change, origin)
            if found and (words is not None or self._texts.is_replaced_by(values)):
                await self._store.put_descriptions(item.number, words.texts if words else {})
        if not found:
            raise UnknownItem(f"item {item.given!r}: not in the store; PUT it whole")
        return None if content is None else self._written(item, after, content)

    def _written(self, item: Item, row: ItemRows, content: ItemContent) -> Values:
        """The answer to a write of texts."""
        return {
            "item_id": item.given,
            "features": values_of(self._schema.stored_item, row),
            "content": {
                "feature": content.origin.feature,
                "digest": content.origin.digest,
                "languages": content.languages,
                "tokens": content.tokens,
                "truncated": content.truncated,
            },
        }

    async def delete(self, item: Item) -> None:
        async with self._refresher.writing(_one(item.number)):
            existed = await self._store.delete_item(_one(item.number))
        if not existed:
            raise UnknownItem(f"item {item.given!r}: not in the store")


def _set(feature: Dense, row: ItemRows, content: ItemContent) -> None:
    """Write a content into a (1,) row. InvalidField if its numbers are beyond the feature's."""
    values = content.values
    if not np.abs(values).max() <= feature.most:  # NaN too
        with naming_features():
            set_values([feature], row, {feature.name: values.tolist()})
    row[feature.name] = values


def contents_of(features: Collection[Stored]) -> Contents:
    """Bounds of a valid body with these features."""
    values = sum(_values_of(feature) for feature in features)
    return Contents.of(values, 4 * (len(features) + 16), DIGITS_A_NUMBER)


def example_of(schema: FeatureSchema) -> Values:
    """An example for the documentation, with every feature 0."""
    return values_of(schema.stored_item, np.zeros(1, schema.item_dtype))


def _values_of(feature: Categorical | CategoricalList | Dense) -> int:
    match feature:
        case CategoricalList():
            return feature.slots
        case Dense():
            return feature.size
    return 1


def _one(number: int) -> Ids:
    return np.array([number], np.int64)


@contextmanager
def naming_features() -> Iterator[None]:
    """Raise a feature's error as InvalidField."""
    try:
        yield
    except FeatureValueError as error:
        raise InvalidField.of(*error.place, detail=error.reason) from None
