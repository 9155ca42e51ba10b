"""Inference by the protocol: from tensors to a query, and from its result to tensors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp

from service.api.body import body_at_hand, deadline_seconds
from service.api.gate import INFER, INFER_VERSION, LARGE, Handler, behind_the_gate
from service.api.inference import infer
from service.api.oip.compression import PLAIN, deflate, read_inflated, wanted_encoding
from service.api.oip.id_tensors import IdTensors
from service.api.oip.message import json_length
from service.api.oip.openapi import infer_documented, parameters_of
from service.api.oip.outputs import response
from service.api.oip.parameters import seconds_allowed
from service.api.oip.request_cache import RequestCache
from service.api.oip.routes import asked_version
from service.api.responses import RawResponse
from service.context import Priority, RequestContext
from service.state import ServiceState

VARY = (b"vary", b"Accept-Encoding")


def infer_handler(state: ServiceState, tensors: IdTensors) -> Handler:
    settings = state.settings
    cache = RequestCache(settings.max_candidates, len(state.store.schema.stored_item), tensors)

    async def handle(ctx: RequestContext, request: Request) -> ASGIApp:
        asked = asked_version(state, request)
        body = body_at_hand(ctx, settings.max_body_bytes)
        if body is None:
            # The body may set a shorter deadline.
            longest = deadline_seconds(ctx, settings.max_deadline_ms, settings.max_deadline_ms)
            last = ctx.timer.started + longest
            body = await read_inflated(ctx, request, settings.max_body_bytes, last)
        start = json_length(ctx.header(b"inference-header-content-length"), len(body))
        if start > LARGE:
            await state.budget.one_at_a_time()
        ctx.timer.lap("receive")

        parsed = cache.read(body[:start])
        query = await parsed.inputs.query(body, start)
        seconds = seconds_allowed(parsed.timeout_us, ctx, settings)
        if parsed.batch:  # or X-Priority
            ctx.priority = Priority.BATCH
        deadline = ctx.timer.started + seconds
        version, result = await infer(state, ctx, query, asked, deadline)

        members: dict[str, Any] = {"model_name": settings.model_name, "model_version": version}
        if parsed.id is not None:
            members["id"] = parsed.id
        content, headers = response(result, parsed.wanted, members, parsed.ignored)
        encoding = wanted_encoding(ctx.header(b"accept-encoding"))
        if encoding != PLAIN:
            content = deflate(content, encoding)
            headers = (*headers, (b"content-encoding", encoding.encode()), VARY)
        ctx.timer.lap("encode")
        return RawResponse(content, headers)

    return handle


def document_infer(app: FastAPI, state: ServiceState, tensors: IdTensors) -> None:
    for path in (INFER, INFER_VERSION):
        documented = infer_documented(parameters_of(path, state), tensors)
        summary = "Score a candidate list for a user"
        app.post(path, name="infer", summary=summary, **documented)(behind_the_gate)
