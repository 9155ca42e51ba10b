"""All metrics of the service, in a registry of its own.

Label values come from lists in the code, never from a request: no client can add a series.
docs/metrics.md explains each metric; a test compares the two. ``exporter`` exports them.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version as version_of
from typing import Literal

import numpy
import onnxruntime
from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    Info,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from service.errors import tree
from service.observability.background import failures
from service.observability.encoder_metrics import EncoderMetrics
from service.observability.event_loop import PAUSES, GCPauses
from service.observability.fast_metrics import Counter, Histogram

# Seconds; ×1.5 to ×2 apart from 50 µs, where a stage begins to matter, to the longest deadline.
LATENCY = (
    *(50e-6, 100e-6, 200e-6, 350e-6, 500e-6, 750e-6),
    *(1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3, 7.5e-3),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0, 2.5, 10.0),
)
CANDIDATES = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 5000)
DELTA = (1e-6, 1e-5, 1e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0)
TAU = (-0.5, 0.0, 0.25, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
ITEM_KINDS = ("scored", "unknown", "unreadable")
SWAPS = ("start", "activate", "promote", "rollback", "automatic_rollback", "fleet", "follow")

# How a gauge of several processes is merged; all else is summed.
Merge = Literal["sum", "min", "max"]
OF_PROCESS: dict[str, Merge] = {"process_start_time_seconds": "min", "process_max_fds": "min"}


class Metrics:
    """One attribute per metric."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they would add half as many series again
        self.registry = registry = CollectorRegistry()
        self.merges: dict[str, Merge] = dict(OF_PROCESS)  # of gauges; those not here are summed
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

        self.requests = Counter(
            "qin_requests",
            "Requests answered, by route and HTTP status.",
            ["route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "qin_request_duration_seconds",
            "Time from a request's first byte to its answer, by route and outcome.",
            ["route", "outcome"],
            buckets=LATENCY,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "qin_stage_duration_seconds",
            "Time of scoring requests by stage; the stages of a request sum to its total.",
            ["stage", "outcome"],
            buckets=LATENCY,
            registry=registry,
        )
        self.problems = Counter(
            "qin_problems",
            "Problem documents sent, by the last word of their type.",
            ["problem"],
            registry=registry,
        )
        self.api_key_requests = Counter(
            "qin_api_key_requests",
            "Requests let in with an API key, by the key's name.",
            ["key"],
            registry=registry,
        )
        self.admission = Counter(
            "qin_admission",
            "Scoring requests by class and outcome: admitted, or refused (429).",
            ["priority", "outcome"],
            registry=registry,
        )
        self.budget = Counter(
            "qin_budget_requests",
            "Requests that are no scoring, by kind and outcome: admitted, or refused because too "
            "much waits already (429). Kind faults: bodies that a scoring route refused.",
            ["kind", "outcome"],
            registry=registry,
        )
        self.budget_seconds = Counter(
            "qin_budget_seconds",
            "Event-loop time of these requests, refusals included.",
            ["kind"],
            registry=registry,
        )
        self.encoder = EncoderMetrics(registry)
        self.candidates = Histogram(
            "qin_request_candidates",
            "Candidates per scored request.",
            buckets=CANDIDATES,
            registry=registry,
        )
        self.items = Counter(
            "qin_items",
            "Candidates answered, by kind: scored, or unknown or unreadable (null).",
            ["kind"],
            registry=registry,
        )
        self.scored, self.unknown, self.unreadable = (
            self.items.labels(kind) for kind in ITEM_KINDS
        )
        lookups = Counter(
            "qin_item_table_lookups",
            "Items looked up in the table, by result: hit or miss.",
            ["result"],
            registry=registry,
        )
        self.table_hits, self.table_misses = lookups.labels("hit"), lookups.labels("miss")
        self.table_moved = Counter(
            "qin_item_table_moved",
            "Requests that looked their items up again, because rows had been evicted.",
            registry=registry,
        )
        self.events = Counter(
            "qin_events",
            "Events by result: applied, repeated or rejected.",
            ["result"],
            registry=registry,
        )
        self.degraded = Counter(
            "qin_degraded",
            "Scored requests with a degraded input, by input.",
            ["what"],
            registry=registry,
        )
        self.ignored_features = Counter(
            "qin_ignored_features",
            "Request features left out of a score, by kind: other_version, which another loaded "
            "version has, or unknown (QIN_UNKNOWN_FEATURES).",
            ["kind"],
            registry=registry,
        )
        self.cold_users = Counter(
            "qin_cold_users",
            "Scored requests without a stored or given history.",
            registry=registry,
        )
        self.cold_items = Counter(
            "qin_cold_items",
            "Candidates scored with a zero id vector: newer than the model.",
            registry=registry,
        )
        self.items_without_content = Counter(
            "qin_items_without_content",
            "Candidates scored without a vector of the encoder that their model was trained with.",
            registry=registry,
        )
        self.history_dropped = Counter(
            "qin_history_items_dropped",
            "History items left out because the store has no readable record of them.",
            registry=registry,
        )
        self.users_unreadable = Counter(
            "qin_users_unreadable",
            "Requests scored without the user's record, by why: damaged, or stale.",
            ["why"],
            registry=registry,
        )
        self.items_unnamed = Counter(
            "qin_items_unnamed",
            "History items left out of an answer's ids because their text ids could not be read.",
            registry=registry,
        )
        self.store_seconds = Histogram(
            "qin_store_duration_seconds",
            "Store round trips, by operation.",
            ["operation"],
            buckets=LATENCY,
            registry=registry,
        )
        self.store_errors = Counter(
            "qin_store_errors",
            "Store round trips that failed, by operation and kind of error.",
            ["operation", "error"],
            registry=registry,
        )
        self.ready = self._gauge(
            "qin_ready",
            "1 when loaded, warmed and verified; 0 while draining or without an engine thread.",
            "min",
        )
        self.model = Info("qin_model", "The active model version.", registry=registry)
        self.version_seconds = Histogram(
            "qin_version_duration_seconds",
            "Scoring requests by the role of the version that answered: active, canary, or named.",
            ["role", "outcome"],
            buckets=LATENCY,
            registry=registry,
        )
        self.model_swaps = Counter(
            "qin_model_swaps",
            "Switches of the active version, by kind.",
            ["kind"],
            registry=registry,
        )
        self.model_loads = Counter(
            "qin_model_loads",
            "Versions brought into memory, by outcome: ready or failed.",
            ["outcome"],
            registry=registry,
        )
        self.model_load_stall = self._gauge(
            "qin_model_load_stall_seconds",
            "Longest stall of the event loop while the last version was loaded.",
            "max",
        )
        self.canary_share = self._gauge(
            "qin_canary_share", "Share of users served by a canary.", "max"
        )
        self.shadow = Counter(
            "qin_shadow_requests",
            "Copies for the shadow version, by outcome: scored, dropped or failed.",
            ["outcome"],
            registry=registry,
        )
        self.shadow_delta = Histogram(
            "qin_shadow_abs_delta",
            "Mean |Δp| of a request's candidates, shadow against answer.",
            buckets=DELTA,
            registry=registry,
        )
        self.shadow_worst = self._gauge(
            "qin_shadow_abs_delta_worst", "Largest |Δp| since the shadow began.", "max"
        )
        self.shadow_tau = Histogram(
            "qin_shadow_kendall_tau",
            "Kendall τ between shadow and answer over the 20 best of a request.",
            buckets=TAU,
            registry=registry,
        )
        self.gc_pauses = GCPauses("qin_gc_pause_seconds", "Pauses by garbage collections.")
        registry.register(self.gc_pauses)
        self.loop_lag = Histogram(
            "qin_event_loop_lag_seconds",
            "Delay of a timer on the event loop, measured 20 times a second.",
            buckets=PAUSES,
            registry=registry,
        )
        self.connections = Gauge(
            "qin_connections",
            "Open connections by port and state.",
            ["port", "state"],
            registry=registry,
        )
        self.connections_cut = Counter(
            "qin_connections_cut",
            "Connections closed by the server, by the state that timed out, or crowded: evicted.",
            ["why"],
            registry=registry,
        )
        self.rescored = Counter(
            "qin_top_k_rescored",
            "Candidates scored again in float32: int8 or bf16 could not exclude them from the "
            "top k.",
            registry=registry,
        )
        self.top_k_bound = Counter(
            "qin_top_k_out_of_bound",
            "Lists scored in float32, because their int8 or bf16 error exceeded the gate's bound.",
            registry=registry,
        )
        self.rechecks = Counter(
            "qin_top_k_rechecks",
            "Int8 and bf16 top-k answers against a full pass: equal, different, passed_over or "
            "failed.",
            ["result"],
            registry=registry,
        )
        registry.register(_BackgroundFailures())
        self._begin_at_zero()
        build = Info("qin_build", "Versions of the service and its libraries.", registry=registry)
        build.info(
            {
                "version": version_of("qin-serving"),
                "python": platform.python_version(),
                "onnxruntime": onnxruntime.__version__,
                "numpy": numpy.__version__,
            }
        )

    def gauge(
        self, name: str, documentation: str, read: Callable[[], float], over: Merge = "sum"
    ) -> None:
        """A gauge read when scraped; ``over``: how several processes are merged."""
        self._gauge(name, documentation, over).set_function(read)

    def counter(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        """A counter read when scraped."""
        self.registry.register(_ReadCounter(name, documentation, read))

    def _begin_at_zero(self) -> None:
        """Create the series of rare events: a series that appears shows no increase."""
        for error in tree():
            self.problems.labels(error.slug)
        for kind in SWAPS:
            self.model_swaps.labels(kind)
        for outcome in ("ready", "failed"):
            self.model_loads.labels(outcome)
        for kind in ("other_version", "unknown"):
            self.ignored_features.labels(kind)
        for outcome in ("scored", "dropped", "failed"):
            self.shadow.labels(outcome)

    def _gauge(self, name: str, documentation: str, over: Merge) -> Gauge:
        self.merges[name] = over
        return Gauge(name, documentation, registry=self.registry)


class _ReadCounter(Collector):
    _labelnames = ()

    def __init__(self, name: str, documentation: str, read: Callable[[], float]) -> None:
        self._name, self._documentation, self._read = name, documentation, read

    def describe(self) -> Iterable[Metric]:
        yield CounterMetricFamily(self._name, self._documentation)

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily(self._name, self._documentation, value=self._read())


class _BackgroundFailures(Collector):
    """Of the process: tasks and threads know no registry."""

    _labelnames = ("task",)

    def describe(self) -> Iterable[Metric]:
        yield self._family()

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for name, count in failures().items():
            family.add_metric([name], count)
        yield family

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(
            "qin_background_failures",
            "Errors of background tasks and threads, by task. Each is logged.",
            labels=self._labelnames,
        )
