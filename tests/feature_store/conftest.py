"""Every backend a feature store can run on, as one parametrised fixture."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from feature_store import FeatureStore, connect
from tests.feature_store.samples import SHOP

BACKENDS = ("lmdb",)


@pytest.fixture(params=BACKENDS)
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty place of its own on each backend in turn."""
    assert request.param == "lmdb"
    return f"lmdb://{tmp_path / 'store'}"


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[FeatureStore]:
    opened = await connect(store_url, SHOP, create=True)
    yield opened
    await opened.close()
