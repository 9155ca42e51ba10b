"""``GET /metrics``, at the service's port or at the admin API's."""

from __future__ import annotations

from fastapi import FastAPI, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from service.state import ServiceState


def add_metrics(app: FastAPI, state: ServiceState) -> None:
    @app.head("/metrics", include_in_schema=False)
    @app.get(
        "/metrics",
        summary="For Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        content = await state.exporter.render()
        return Response(content, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
