"""Everything the service is made of, built in one place and taken down in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from feature_store.connect import connect
from feature_store.contract import FeatureStore
from model_export.bundle import Bundle, newest
from model_export.manifest import MANIFEST
from service.engine import Engine
from service.loading import load_version
from service.logs import logger
from service.metrics import Metrics
from service.readiness import Readiness
from service.scoring import Scoring
from service.settings import Settings
from service.store import StoreReader
from service.versions import Versions


@dataclass(frozen=True, slots=True, eq=False)
class House:
    """The typed state that routes are given."""

    settings: Settings
    metrics: Metrics
    store: FeatureStore
    engine: Engine
    scoring: Scoring
    versions: Versions
    readiness: Readiness

    async def load(self, bundle: Bundle) -> None:
        """Load the first version; then the service is ready."""
        version = await load_version(
            bundle, self.store, self.engine, self.settings.max_table_items, self.readiness
        )
        self.versions.activate(version)
        self.metrics.model.info({"version": version.name})
        self.metrics.ready.set(1)
        self.readiness.ready = True
        logger.info("ready", model_version=version.name, engine_threads=self.engine.threads)


@asynccontextmanager
async def open_house(settings: Settings) -> AsyncIterator[tuple[House, Bundle]]:
    """Open bundle and store, start the engine. Raises BundleError or StoreError, with remedies."""
    bundle = await asyncio.to_thread(open_bundle, settings.bundle)
    store = await connect(settings.store, bundle.schema)
    engine = Engine(
        settings.engine_threads,
        chunk=settings.chunk_candidates,
        min_chunk=settings.min_chunk_candidates,
    )
    try:
        metrics = Metrics()
        house = House(
            settings=settings,
            metrics=metrics,
            store=store,
            engine=engine,
            scoring=Scoring(StoreReader(store, metrics), engine, metrics),
            versions=Versions(),
            readiness=Readiness(),
        )
        _expose(house)
        yield house, bundle
    finally:
        await asyncio.to_thread(engine.close)
        await store.close()


def open_bundle(path: Path) -> Bundle:
    """The bundle at ``path``, or the newest of a folder of bundles; digests checked."""
    return Bundle.open(path) if (path / MANIFEST).exists() else newest(path)


def _expose(house: House) -> None:
    """Numbers that live elsewhere, read when scraped."""
    engine, versions = house.engine, house.versions
    gauge, counter = house.metrics.gauge, house.metrics.counter

    def of_table(attribute: str) -> float:
        active = versions.active
        return float(getattr(active.table, attribute)) if active else 0.0

    gauge("qin_engine_threads", "Engine threads.", lambda: engine.threads)
    gauge("qin_engine_queue", "Requests waiting for an engine thread.", lambda: engine.queued)
    counter("qin_engine_chunks", "Chunks run.", lambda: engine.chunks)
    counter(
        "qin_engine_expired",
        "Requests dropped or cut short by the engine because their deadline had passed.",
        lambda: engine.expired,
    )
    gauge("qin_item_table_items", "Items ready in memory.", lambda: of_table("count"))
    gauge("qin_item_table_capacity", "Items the table has room for.", lambda: of_table("capacity"))
    counter(
        "qin_item_table_refused",
        "Times an item found the table full: requests fetch it again each time.",
        lambda: of_table("refused"),
    )
