"""Opening stores for tests that are about what a store does, not how fast."""

from __future__ import annotations

from typing import Any

from feature_store import FeatureSchema, FeatureStore
from feature_store import connect as connect_as_served
from feature_store.options import StoreOptions

PATIENCE_MS = 5_000.0  # a busy test machine is no fault of the store


async def connect(
    url: str, schema: FeatureSchema | None = None, *, create: bool = False, **options: Any
) -> FeatureStore:
    patient = StoreOptions(**{"budget_ms": PATIENCE_MS, **options})
    return await connect_as_served(url, schema, create=create, options=patient)
