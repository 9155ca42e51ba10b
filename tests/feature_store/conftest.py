"""A store of the small shop on every backend in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from feature_store import FeatureStore
from tests.feature_store.samples import SHOP
from tests.feature_store.stores import connect


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[FeatureStore]:
    opened = await connect(store_url, SHOP, create=True)
    yield opened
    await opened.close()
