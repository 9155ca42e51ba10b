"""``/v1/users/{user_id}``: writes a user's features by name."""

from __future__ import annotations

import numpy as np
from starlette.exceptions import HTTPException

from feature_store.contract import UserRows
from feature_store.errors import TextCollision
from feature_store.feature_values import set_values, user_row, values_of
from feature_store.schema import FeatureSchema
from service.api.body import Contents
from service.api.id_kind import COLLISION, Item
from service.api.items import Values, contents_of, naming_features
from service.context import RequestContext
from service.errors import InvalidField, UnknownUser
from service.items.store_client import StoreReader


class UserRecords:
    """Writes user records. Every request reads its user's, so a write is visible at once."""

    def __init__(self, store: StoreReader) -> None:
        self._store = store

    async def contents(self) -> Contents:
        """Bounds of a valid body."""
        return contents_of((await self._schema()).user)

    async def _schema(self) -> FeatureSchema:
        """The store's schema. HTTPException as of an unknown path if it has no user features."""
        schema = await self._store.user_schema()
        if not schema.user:
            raise HTTPException(404)
        return schema

    async def put(self, user: Item, values: Values, ctx: RequestContext) -> None:
        """Replace a record. Every feature must be given."""
        schema = self._store.store.schema
        with naming_features():
            row = user_row(schema, values)
        texts = {user.number: user.given} if isinstance(user.given, str) else None
        try:
            await self._store.put_user(np.array([user.number]), row, texts)
        except TextCollision:
            raise InvalidField.of("user_id", detail=COLLISION) from None

    async def patch(self, user: Item, values: Values, ctx: RequestContext) -> None:
        """Change the given features."""
        if not values:
            raise InvalidField.of("body", detail="give at least one feature")
        schema = self._store.store.schema
        features = schema.user
        with naming_features():  # before the store is asked
            set_values(features, np.zeros(1, schema.user_dtype), values)

        def change(row: UserRows) -> None:
            set_values(features, row, values)

        if not await self._store.patch_user(user.number, change):
            raise UnknownUser(f"user {user.given!r}: has no record; PUT it whole")

    async def delete(self, user: Item) -> None:
        """Remove the record; the history stays."""
        await self._schema()
        if not await self._store.delete_user(user.number):
            raise UnknownUser(f"user {user.given!r}: has no record")


def example_of(schema: FeatureSchema) -> Values:
    """An example for the documentation, with every feature 0."""
    return values_of(schema.user, np.zeros(1, schema.user_dtype))
