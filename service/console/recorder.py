"""Makes the recorder of the console's figures from the parts of a service."""

from __future__ import annotations

import psutil

from service.api.gate import SCORING
from service.engine.engine import Engine
from service.items.store_client import StoreReader
from service.lifecycle.catalog import ModelCatalog
from service.observability.exporter import Worker
from service.observability.metrics import Metrics
from service.observability.recent_traffic import RecentTraffic, Totals
from service.settings import Settings


def recorder(
    settings: Settings,
    metrics: Metrics,
    worker: Worker | None,
    engine: Engine,
    reader: StoreReader,
    catalog: ModelCatalog,
) -> RecentTraffic:
    """Make the recorder of this process; ``worker`` says which, if there are several."""
    process = psutil.Process()

    def gauges() -> tuple[float, ...]:
        """As ``GAUGES`` names them."""
        ready = next(iter(metrics.ready.collect())).samples[0].value
        memory = float(process.memory_info().rss)
        return float(engine.queued), float(engine.threads), float(reader.reachable), ready, memory

    return RecentTraffic(
        Totals(metrics, SCORING),
        lambda: engine.busy,
        gauges,
        catalog.marks,
        None if worker is None else worker.folder,
        0 if worker is None else worker.number,
        settings.workers,
    )
