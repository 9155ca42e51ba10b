"""Operational routes: probes, ``GET /metrics``, and the API page at ``GET /docs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response
from fastapi.routing import APIRoute
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from service.api.openapi import problem
from service.lifecycle.catalog import content_of
from service.state import ServiceState

PAGE = Path(__file__).with_name("docs_page.html").read_bytes()
# The page runs its own script only and connects to this service only.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_probes(app: FastAPI, state: ServiceState) -> None:
    @app.get("/livez", summary="Liveness")
    async def live() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", summary="Readiness", responses={503: problem()})
    async def ready() -> dict[str, Any]:
        active, reachable = state.ready(), state.reader.reachable
        lost = ["history", "user"] if active.schema.user else ["history"]
        found = {
            "status": "ready",
            "store": "reachable" if reachable else "unreachable",
            "ids": "numeric" if state.store.text_ids is None else "mapped",
            "degraded": [] if reachable else lost,
            "model_version": active.name,
            "passed_over": sorted(state.startup.passed_over),
            "items": active.table.count,
            "item_capacity": active.table.capacity,
            "precision": active.model.precision,
            "precision_reason": active.model.placement.reason,
            "top_k_precision": active.model.top_k,
            "provider": active.model.placement.provider,
            "provider_fallback": active.model.placement.fallback,
            "rounding_accepted": active.model.rounding_accepted,
            **content_of(active),
        }
        if state.encoding is not None:
            about = active.about_encoder
            found["encoder"] = None if about is None else about["version"]
        return found


def add_metrics(app: FastAPI, state: ServiceState) -> None:
    @app.get(
        "/metrics",
        summary="Metrics for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        content = await state.exporter.render()
        return Response(content, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


def add_docs(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        return Response(PAGE, media_type="text/html", headers=headers)


def add_head(app: FastAPI) -> None:
    """Answer HEAD wherever GET is answered, as HTTP requires. Undocumented; the server sends no
    body."""
    for route in list(app.routes):
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            app.head(route.path, include_in_schema=False)(route.endpoint)
