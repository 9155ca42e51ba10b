"""Loads a model as the service does, and scores requests with the service's pipeline."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

import feature_store
from batch.inputs.requests import Requests
from batch.job import PATIENCE_S, Cut
from batch.scoring.patient_reader import PatientReader
from batch.scoring.scores import REJECTED_USER, Scores, item_codes, user_code
from feature_store.contract import FeatureStore, Ids
from feature_store.options import StoreOptions
from model_export.bundle.bundle import Bundle
from service.context import StageTimer
from service.engine.engine import Engine
from service.errors import InvalidField, ModelFault
from service.lifecycle.catalog import State
from service.lifecycle.load_steps import LoadSteps
from service.observability.metrics import Metrics
from service.scoring.pipeline import ScoringPipeline
from service.settings import Settings

UNDER_WAY = 4  # requests at a time: one is computed, the others are read and prepared
DEADLINE_S = 86_400.0  # of one request: none, in effect
STORE = StoreOptions(budget_ms=10_000, read_only=True)

Histories = Callable[[int], Ids | None]  # request -> its history, newest first; None: the stored


class Scorer:
    """One model, its item table and one engine thread. For one thread to use."""

    def __init__(
        self,
        bundle: Path,
        store: str,
        cut: Cut,
        table_folder: Path | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Load, and verify the golden answers. BundleError, StoreError.

        ``patience_s``: see ``PatientReader``. ``table_folder``: see ``Job``.
        """
        self._url, self._cut, self._patience_s = store, cut, patience_s
        settings = settings_of(bundle, store, cut, table_folder)
        whole, stop = Bundle.open(bundle), threading.Event()
        steps = LoadSteps(whole, settings, [], _Quiet(), stop, lambda _: None, options=STORE)
        self.version = steps.run()
        self.schema = self.version.schema
        self._runner = asyncio.Runner()
        self._store: FeatureStore
        self._engine: Engine
        self._pipeline: ScoringPipeline
        self._runner.run(self._open())

    async def _open(self) -> None:
        cut, metrics = self._cut, Metrics()
        self._store = await feature_store.connect(self._url, self.schema, options=STORE)
        self._engine = Engine(
            1, chunk=cut.chunk, min_chunk=cut.min_chunk, name="engine", cut_as=cut.threads_as
        )
        self._reader = PatientReader(self._store, metrics, self._patience_s)
        await self._reader.begin()
        self._pipeline = ScoringPipeline(self._reader, self._engine, metrics)

    @property
    def store(self) -> FeatureStore:
        return self._store

    def score(self, requests: Requests, histories: Histories | None = None) -> Scores:
        """Score all requests without a fault; StoreGone. ``histories``: in place of the stored."""
        scores = Scores.empty(len(requests), len(requests.items))
        self._runner.run(self._score(requests, histories, scores))
        self._runner.run(self._reader.still_there(self._url, STORE))
        return scores

    async def _score(self, requests: Requests, histories: Histories | None, into: Scores) -> None:
        left = (g for g in range(len(requests)) if g not in requests.faults)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(UNDER_WAY):
                    group.create_task(self._take(left, requests, histories, into))
        except ExceptionGroup as group_of:
            raise group_of.exceptions[0] from None

    async def _take(
        self, left: Iterator[int], requests: Requests, histories: Histories | None, into: Scores
    ) -> None:
        for g in left:
            query = requests.query(g, None if histories is None else histories(g))
            deadline = perf_counter() + DEADLINE_S
            try:
                scored = await self._pipeline.score(query, self.version, deadline, StageTimer())
            except (InvalidField, ModelFault) as error:
                into.faults[g] = error.detail
                into.users[g] = REJECTED_USER
                continue
            span = slice(int(requests.starts[g]), int(requests.starts[g + 1]))
            into.scores[span] = scored.result.scores
            into.items[span] = item_codes(scored.result)
            into.users[g] = user_code(scored.result)

    def close(self) -> None:
        """Stop the thread, and close the store."""
        self._engine.close()
        self._runner.run(self._store.close())
        self._runner.close()


def settings_of(bundle: Path, store: str, cut: Cut, table_folder: Path | None) -> Settings:
    """Return the service's settings for this model, without those of the environment."""
    return Settings.model_construct(
        bundle=bundle,
        store=store,
        workers=1,
        threads=1,
        chunk_candidates=cut.chunk,
        min_chunk_candidates=cut.min_chunk,
        precision="fp32",
        provider="cpu",
        table_folder=table_folder,
    )


class _Quiet:
    """Receives the progress of a load."""

    def enter(self, state: State, step: str, total: int = 0) -> None: ...
    def advance(self, count: int) -> None: ...
