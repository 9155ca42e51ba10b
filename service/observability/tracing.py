"""OpenTelemetry spans, made from a request's timings after its answer has been sent.

Imported only if ``QIN_TRACE_URL`` is set: needs the extra ``tracing``.
"""

from __future__ import annotations

import os
from importlib.metadata import version as version_of
from time import perf_counter, time_ns

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue
from starlette.types import Scope

from service.context import OTHER, RequestContext
from service.settings import Settings

EXPORT_TIMEOUT_S = 2
SENT_ON = ("traceparent", "tracestate")


class Traces:
    """One span per request and one per stage. A caller's ``traceparent`` becomes the parent and
    decides on sampling; without it, the share ``sample`` is recorded."""

    def __init__(self, processor: SpanProcessor, sample: float) -> None:
        resource = Resource.create(
            {
                SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or "qin-serving",
                SERVICE_VERSION: version_of("qin-serving"),
            }
        )
        sampler = ParentBased(TraceIdRatioBased(sample))
        self._provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("service")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, url: str, settings: Settings) -> Traces:
        """Export in batches from a background thread; spans that cannot be sent are dropped."""
        exporter = OTLPSpanExporter(endpoint=url, timeout=EXPORT_TIMEOUT_S)
        return cls(BatchSpanProcessor(exporter), settings.trace_sample)

    def record(self, ctx: RequestContext, scope: Scope, route: str) -> None:
        """Record a request that has ended."""
        timer = ctx.timer
        began = time_ns() - _ns(perf_counter() - timer.started)
        span = self._tracer.start_span(
            f"{scope['method']} {route}", self._parent(ctx), SpanKind.SERVER, start_time=began
        )
        if not span.is_recording():
            return
        span.set_attributes(_attributes(ctx, scope, route))
        if ctx.status >= 500:
            span.set_status(Status(StatusCode.ERROR, ctx.problem))
        self._stages(span, began, timer.seconds)
        span.end(began + _ns(timer.total))

    def close(self) -> None:
        """Send the remaining spans. Blocks for ``EXPORT_TIMEOUT_S`` at most."""
        self._provider.shutdown()

    def _stages(self, span: Span, began: int, seconds: dict[str, float]) -> None:
        """Spans end to end, in the order of first entry; a stage entered more than once is one
        span of the sum."""
        if seconds.keys() == {OTHER}:
            return  # a route that has none
        within = set_span_in_context(span)
        for stage, took in seconds.items():
            ended = began + _ns(took)
            self._tracer.start_span(stage, within, start_time=began).end(ended)
            began = ended

    def _parent(self, ctx: RequestContext) -> Context:
        """Empty if the header is not valid W3C trace context."""
        sent = {name: ctx.header(name.encode()) for name in SENT_ON}
        carrier = {name: value for name, value in sent.items() if value is not None}
        return self._propagator.extract(carrier, Context())


def _attributes(ctx: RequestContext, scope: Scope, route: str) -> dict[str, AttributeValue]:
    """OpenTelemetry's names for HTTP, own names for the rest. Never the user."""
    found: dict[str, AttributeValue | None] = {
        "http.request.method": scope["method"],
        "http.route": route,
        "http.response.status_code": ctx.status,
        "error.type": ctx.problem,
        "qin.request_id": ctx.request_id,
        "qin.model_version": ctx.model_version,
        "qin.role": ctx.role,
        "qin.candidates": ctx.candidates or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
