"""Composition root: builds the parts of the service, and takes them down in reverse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from feature_store.connect import connect
from feature_store.contract import FeatureStore
from feature_store.errors import StoreError, StoreMismatch
from model_export.bundle.bundle import Bundle
from model_export.bundle.errors import BundleError
from model_export.bundle.runtime import FoldedModel
from model_export.bundle.signature import PublicKeys
from service.admission.admission import Admission
from service.admission.loop_budget import LoopBudget
from service.artifacts.importer import ImportedBundle, ImportPolicy
from service.artifacts.local_copies import LocalCopies
from service.artifacts.repository import ModelRepository
from service.console.recorder import recorder
from service.encoding.optional import check_encoder, make_encoding
from service.engine.engine import Engine
from service.items.item_texts import ItemTexts
from service.items.shared_file import check_shared
from service.items.store_client import StoreReader, store_options
from service.lifecycle.catalog import ModelCatalog
from service.lifecycle.fleet import Fleet
from service.lifecycle.item_refresh import ItemRefresher
from service.lifecycle.manager import ModelManager
from service.lifecycle.readiness import Readiness
from service.lifecycle.shadow import Shadow
from service.lifecycle.startup import StartupVersions
from service.lifecycle.top_k_audit import TopKAudit
from service.lifecycle.watcher import RepositoryWatcher
from service.models.registry import ModelRegistry
from service.observability.audit_trail import AuditTrail
from service.observability.event_loop import watched
from service.observability.exporter import Worker, make_exporter
from service.observability.log_writer import dropped
from service.observability.metrics import Metrics
from service.observability.model_metrics import expose_versions
from service.private_directory import make_private
from service.scoring.pipeline import ScoringPipeline
from service.settings import Settings
from service.state import ServiceState

if TYPE_CHECKING:
    from service.encoding.encoding import TextEncoding  # takes an extra
    from service.observability.tracing import Traces  # takes an extra


@asynccontextmanager
async def build_application(
    settings: Settings, worker: Worker | None = None
) -> AsyncIterator[tuple[ServiceState, Bundle]]:
    """Open bundle and store, start the engine. Raises BundleError or StoreError, with remedies.

    ``worker``: which of a service's several processes this is, if there are several.
    """
    repository = ModelRepository(settings.bundle)
    if not repository.versions():
        raise BundleError(repository.nothing())
    await asyncio.to_thread(check_encoder, settings)
    make_private(settings.private, "QIN_PRIVATE")  # the tables may be below it
    if settings.table_folder is not None:
        check_shared(settings.table_folder)
    copies = LocalCopies(settings.private, settings.bundle)
    keys = PublicKeys.read(settings.public_key) if settings.public_key else None
    policy = ImportPolicy(settings.max_bundle_bytes, keys)
    wanted = await Fleet.wanted(settings)
    await asyncio.to_thread(copies.prepare)
    startup = StartupVersions(repository, copies, policy, settings.pinned_version, wanted)
    imported, store = await _first_and_its_store(startup, settings)
    engine = Engine(
        settings.engine_threads,
        chunk=settings.chunk_candidates,
        min_chunk=settings.min_chunk_candidates,
        niceness=settings.engine_niceness,
    )
    metrics, registry, readiness = Metrics(), ModelRegistry(), Readiness()
    may_do_without = settings.on_store_failure == "degrade"
    reader = StoreReader(store, metrics, may_do_without=may_do_without)
    refresher = ItemRefresher(reader, registry, settings.item_reread_s)
    shadow = Shadow(reader, metrics, settings.chunk_candidates)
    audit = TopKAudit(registry, metrics, settings.top_k_recheck, settings.chunk_candidates)
    catalog = ModelCatalog(settings, repository, registry, shadow)

    async def current_policy() -> ImportPolicy:
        """User features may have been added to the store since the start."""
        return replace(startup.policy, store_schema=await store.refresh_schema())

    encoding = make_encoding(settings, policy, metrics, registry.encoders)
    encoders = encoding.loader if encoding is not None else None
    manager = ModelManager(catalog, copies, current_policy, metrics, refresher.catch_up, encoders)
    fleet = Fleet(settings, store, manager)

    async def activate(version: str, kind: str) -> None:
        await manager.activate(version, kind)
        await fleet.publish("activate", version)

    watcher = RepositoryWatcher(
        repository,
        copies.state,
        activate,
        settings.follow_every_s,
        active=lambda: registry.active.name if registry.active else None,
        refused=startup.refused,
    )
    admission = Admission(engine, metrics, settings.target_ms / 1e3)
    budget = LoopBudget(
        metrics, admission.let_in, settings.workers, settings.max_in_flight_connections
    )
    state = ServiceState(
        settings=settings,
        metrics=metrics,
        store=store,
        reader=reader,
        item_texts=ItemTexts(reader),
        refresher=refresher,
        engine=engine,
        admission=admission,
        budget=budget,
        scoring=ScoringPipeline(reader, engine, metrics, budget),
        audit=audit,
        registry=registry,
        readiness=readiness,
        manager=manager,
        fleet=fleet,
        watcher=watcher,
        copies=copies,
        startup=startup,
        imported=imported,
        exporter=make_exporter(metrics, worker, budget),
        recent=recorder(settings, metrics, worker, engine, reader, catalog),
        trail=AuditTrail(settings.private / "audit.jsonl"),
        traces=_traces(settings),
        encoding=encoding,
    )
    try:
        _expose(state)
        async with state.exporter, state.recent, watched(metrics.gc_pauses, metrics.loop_lag):
            yield state, imported.bundle
    finally:
        await fleet.close()
        await manager.close()
        await audit.close()
        await refresher.close()
        if state.encoding is not None:
            await asyncio.to_thread(state.encoding.close)
        await asyncio.to_thread(engine.close)
        await store.close()
        if state.traces is not None:
            await asyncio.to_thread(state.traces.close)


async def _first_and_its_store(
    startup: StartupVersions, settings: Settings
) -> tuple[ImportedBundle, FeatureStore]:
    """The first version that fits the store; BundleError or StoreError when there is none."""
    mismatch: StoreMismatch | None = None
    while True:
        try:
            imported = await asyncio.to_thread(startup.next)
        except BundleError as error:
            raise mismatch or error from None
        schema, options = imported.bundle.schema, store_options(settings)
        try:
            store = await connect(settings.store, schema, options=options)
        except StoreMismatch as error:
            try:  # without a schema it answers, unless the fault is the store's own
                await (await connect(settings.store, options=options)).close()
            except StoreError:
                raise error from None
            version = imported.copy.version
            mismatch = mismatch or StoreMismatch(f"bundle {version}: {error}")
            if startup.is_chosen:
                raise mismatch from None
            startup.pass_over(version, str(error))
        else:
            startup.hold_to(store.schema)
            return imported, store


def _traces(settings: Settings) -> Traces | None:
    if settings.trace_url is None:
        return None
    from service.observability.tracing import Traces

    return Traces.to(settings.trace_url, settings)


def _expose(state: ServiceState) -> None:
    """Expose numbers that other parts hold; they are read when scraped."""
    expose_versions(state.metrics, lambda: ((v.name, v.stats) for v in state.registry.all()))
    state.metrics.ready.set_function(lambda: float(state.scores))
    engine, registry, admission = state.engine, state.registry, state.admission
    gauge, counter = state.metrics.gauge, state.metrics.counter
    refresher, reader, encoding = state.refresher, state.reader, state.encoding

    def of_table(attribute: str) -> float:
        active = registry.active
        return float(getattr(active.table, attribute)) if active else 0.0

    counter(
        "qin_log_lines_dropped",
        "Log lines not written, because the log was not read in time.",
        dropped,
    )
    gauge("qin_engine_threads", "Engine threads.", lambda: engine.threads)
    gauge("qin_engine_queue", "Requests waiting for an engine thread.", lambda: engine.queued)
    counter("qin_engine_chunks", "Chunks run.", lambda: engine.chunks)
    counter(
        "qin_engine_expired",
        "Requests dropped or cut short by the engine because their deadline had passed.",
        lambda: engine.expired,
    )
    counter(
        "qin_engine_expired_run",
        "Calls of the graphs that began after their deadline: 0, or the engine is broken.",
        lambda: engine.expired_runs,
    )
    counter("qin_engine_busy_seconds", "Time that threads scored, of all.", lambda: engine.busy)
    gauge(
        "qin_admission_limit_seconds",
        "Forecast waiting up to which online requests are let in.",
        lambda: admission.limit,
        "min",
    )
    gauge(
        "qin_admission_forecast_seconds",
        "How long those let in will keep the engine from a newcomer.",
        admission.forecast,
        "max",
    )

    def of_encoder(read: Callable[[TextEncoding], float]) -> Callable[[], float]:
        return lambda: read(encoding) if encoding is not None else 0.0

    gauge(
        "qin_encoder_queue",
        "Requests for vectors waiting for a thread of the encoder.",
        of_encoder(lambda encoding: encoding.engine.queued),
    )
    counter(
        "qin_encoder_busy_seconds",
        "Time that threads encoded texts, of all.",
        of_encoder(lambda encoding: encoding.engine.busy),
    )
    gauge(
        "qin_encoder_forecast_seconds",
        "How long admitted requests will keep the encoder from a newcomer with a short text.",
        of_encoder(lambda encoding: encoding.admission.forecast()),
        "max",
    )
    gauge(
        "qin_encoders_loaded",
        "Encoders in memory: one for all versions that need it.",
        of_encoder(lambda encoding: encoding.loader.loaded),
        "max",
    )
    gauge("qin_model_versions_loaded", "Versions in memory.", lambda: len(registry.all()), "max")
    gauge(
        "qin_models_left_aside",
        "Bundles newer than the one followed last that are not followed: refused, incomplete, or "
        "dated in the future.",
        lambda: state.watcher.left_aside,
        "max",
    )
    gauge("qin_item_table_items", "Items ready in memory.", lambda: of_table("count"), "max")
    gauge(
        "qin_item_table_capacity",
        "Items the table has room for.",
        lambda: of_table("capacity"),
        "max",
    )
    gauge(
        "qin_item_table_bytes",
        "Memory of the items there are.",
        lambda: of_table("bytes"),
        "max" if state.settings.table_folder else "sum",  # one table, or one each
    )
    counter(
        "qin_item_table_refused",
        "Times an item found no room in the table: requests fetch it again each time.",
        lambda: of_table("refused"),
    )
    counter(
        "qin_item_table_evicted", "Items that made room for others.", lambda: of_table("evicted")
    )
    counter(
        "qin_item_table_not_kept",
        "Times a fetched item was not kept, because another process held the table's lock.",
        lambda: of_table("not_kept"),
    )
    counter("qin_item_changes", "Items read from the change log.", lambda: float(refresher.changed))
    counter(
        "qin_item_changes_lost",
        "Times that the change log had lost changes, so that every item was read again.",
        lambda: float(refresher.lost),
    )
    gauge(
        "qin_item_changes_waiting",
        "Changed items that are not back in the table.",
        lambda: float(refresher.waiting),
        "max",
    )
    counter(
        "qin_item_changes_unreadable",
        "Entries of the change log that were no list of ids, and were passed over.",
        lambda: float(refresher.unreadable),
    )
    gauge(
        "qin_item_changes_followed",
        "0 while the change log cannot be read: answers may be made of old items.",
        lambda: float(refresher.followed),
        "min",
    )
    counter(
        "qin_item_rereads",
        "Times that every item had been read again, in case that a change was not announced.",
        lambda: float(refresher.reread),
    )
    counter(
        "qin_store_odd_replies",
        "Replies of the store in an unknown form, and failed turns of its background work.",
        lambda: float(state.store.odd_replies),
    )
    gauge(
        "qin_store_reachable",
        "0 while the store does not answer.",
        lambda: float(reader.reachable),
        "min",
    )
    gauge(
        "qin_workers",
        "Processes that answer requests; one that starts does not yet.",
        lambda: float(state.readiness.ready),
    )

    def of_model(is_so: Callable[[FoldedModel], bool]) -> Callable[[], float]:
        return lambda: float(registry.active is not None and is_so(registry.active.model))

    gauge(
        "qin_int8",
        "1 while the active version scores in int8.",
        of_model(lambda model: model.precision == "int8"),
        "min",
    )
    gauge(
        "qin_bf16",
        "1 while the active version scores in bf16.",
        of_model(lambda model: model.precision == "bf16"),
        "min",
    )
    gauge(
        "qin_provider_fallback",
        "1 while the active version runs on the CPU because provider=auto found no usable GPU.",
        of_model(lambda model: model.placement.fallback is not None),
        "max",
    )
