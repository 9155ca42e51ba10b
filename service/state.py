"""The typed state that routes are given: every part of a built service."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from feature_store.contract import FeatureStore
from feature_store.schema import Dense
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError, NotYet
from service.admission.admission import Admission
from service.admission.loop_budget import LoopBudget
from service.artifacts.importer import ImportedBundle
from service.artifacts.local_copies import LocalCopies
from service.encoding.content_feature import content_feature
from service.engine.engine import Engine
from service.errors import NotReady
from service.items.item_texts import ItemTexts
from service.items.store_client import StoreReader
from service.lifecycle.fleet import Fleet
from service.lifecycle.item_refresh import ItemRefresher
from service.lifecycle.manager import ModelManager
from service.lifecycle.readiness import Readiness, prove
from service.lifecycle.startup import StartupVersions
from service.lifecycle.top_k_audit import TopKAudit
from service.lifecycle.watcher import RepositoryWatcher
from service.models.loaded_model import LoadedModel
from service.models.registry import ModelRegistry
from service.observability.audit_trail import AuditTrail
from service.observability.background import keep
from service.observability.exporter import Exporter
from service.observability.logs import logger
from service.observability.metrics import Metrics
from service.observability.recent_traffic import RecentTraffic
from service.scoring.pipeline import ScoringPipeline
from service.settings import Settings

if TYPE_CHECKING:
    from service.encoding.encoding import TextEncoding  # takes an extra
    from service.observability.tracing import Traces  # takes an extra


@dataclass(frozen=True, slots=True, eq=False)
class ServiceState:
    """Holds every part of a service that ``service.application`` builds and takes down."""

    settings: Settings
    metrics: Metrics
    store: FeatureStore
    reader: StoreReader
    item_texts: ItemTexts
    refresher: ItemRefresher
    engine: Engine
    admission: Admission
    budget: LoopBudget
    scoring: ScoringPipeline
    audit: TopKAudit
    registry: ModelRegistry
    readiness: Readiness
    manager: ModelManager
    fleet: Fleet
    watcher: RepositoryWatcher
    copies: LocalCopies
    startup: StartupVersions
    imported: ImportedBundle
    exporter: Exporter
    recent: RecentTraffic
    trail: AuditTrail
    traces: Traces | None
    encoding: TextEncoding | None

    async def load(self, bundle: Bundle) -> None:
        """Load the first version that proves itself; then the service is ready."""
        imported = self.imported
        assert bundle is imported.bundle
        self.manager.catalog.passed_over(self.startup.passed_over)
        while True:
            try:
                await self.manager.start(imported, self.readiness)
                break
            except BundleError as error:
                if self.startup.is_chosen:
                    raise
                models = self.manager.catalog.repository.models
                reason = self.copies.as_published(str(error), models)
                for_good = not isinstance(error, NotYet)
                self.startup.pass_over(imported.copy.version, reason, for_good=for_good)
                imported = await asyncio.to_thread(self.startup.next)
        await asyncio.to_thread(self.startup.begun_with, imported)
        self.readiness.enter("a first score")
        assert self.registry.active is not None, "it has just been started"
        await prove(self.engine, self.registry.active)
        self.readiness.ready = True
        self.fleet.begin()
        logger.info(
            "ready", model_version=imported.copy.version, engine_threads=self.engine.threads
        )

    @property
    def feature_of_texts(self) -> Dense | None:
        """The item feature that the active version's encoder makes, if items have it."""
        try:
            content = self.encoding.encoder.content_map if self.encoding is not None else None
        except NotReady:  # no version has one
            return None
        if content is None:
            return None
        return content_feature(content, self.store.schema.stored_item)

    @property
    def scores(self) -> bool:
        """Whether it is loaded, not draining, and has all its engine threads."""
        readiness = self.readiness
        return readiness.ready and not readiness.draining and not self._threads_waited_for

    @property
    def _threads_waited_for(self) -> str:
        encoders = self.encoding.engine.waiting_for if self.encoding is not None else ""
        return self.engine.waiting_for or encoders

    def ready(self) -> LoadedModel:
        """The active version. NotReady when the service should not be sent traffic."""
        readiness, active = self.readiness, self.registry.active
        waiting_for = "" if readiness.ready else readiness.waiting_for
        if readiness.draining:
            waiting_for = "nothing: it is about to stop"
        waiting_for = waiting_for or self._threads_waited_for
        if not waiting_for and not self.reader.reachable and not self.reader.may_do_without:
            waiting_for = "the feature store to answer"
        if waiting_for or active is None:
            raise NotReady(
                f"waiting for: {waiting_for}",
                headers={"Retry-After": "1"},
                members={"waiting_for": waiting_for},
            )
        return active

    async def follow(self) -> None:
        """Follow the newest version in the models folder, if that is the policy."""
        settings, repository = self.settings, self.manager.catalog.repository
        if settings.model_policy != "newest" or repository.single:
            return

        await keep("model_follow", partial(self.watcher.follow, self.fleet.leads))
