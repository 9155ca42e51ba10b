"""The protocol's inference: tensors to a question, and an answer to tensors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp

from service.api.body import body_at_hand, deadline_seconds
from service.api.gate import LARGE, Handler, behind_the_gate
from service.api.inference import ask
from service.api.middleware import INFER, INFER_VERSION, context_of
from service.api.oip.binary import json_length
from service.api.oip.compression import PLAIN, deflate, read_inflated, wanted_encoding
from service.api.oip.inputs import query_of
from service.api.oip.naming import asked_version
from service.api.oip.openapi import infer_documented, parameters_of
from service.api.oip.outputs import response
from service.api.oip.parameters import seconds_allowed
from service.api.oip.request_cache import RequestCache
from service.api.responses import RawResponse
from service.application import ServiceState
from service.priority import Priority

VARY = (b"vary", b"Accept-Encoding")


def infer_handler(state: ServiceState) -> Handler:
    settings = state.settings
    plans = RequestCache(settings.max_candidates, len(state.store.schema.context))

    async def infer(request: Request) -> ASGIApp:
        ctx, asked = context_of(request), asked_version(state, request)
        body = body_at_hand(request, settings.max_body_bytes)
        if body is None:
            # Until the body says what it may take.
            longest = deadline_seconds(request, settings.max_deadline_ms, settings.max_deadline_ms)
            last = ctx.timer.started + longest
            body = await read_inflated(request, settings.max_body_bytes, last)
        start = json_length(ctx.header(b"inference-header-content-length"), len(body))
        if start > LARGE:
            await state.budget.one_at_a_time()
        ctx.timer.lap("receive")

        plan = plans.read(body[:start])
        query = query_of(plan.inputs, body, start)
        seconds = seconds_allowed(plan.timeout_us, request, settings)
        if plan.batch:  # as X-Priority may say too
            ctx.priority = Priority.BATCH
        deadline = ctx.timer.started + seconds
        version, answer = await ask(state, request, query, asked, deadline)

        members: dict[str, Any] = {"model_name": settings.model_name, "model_version": version}
        if plan.id is not None:
            members["id"] = plan.id
        content, headers = response(answer, plan.wanted, members, plan.ignored)
        encoding = wanted_encoding(ctx.header(b"accept-encoding"))
        if encoding != PLAIN:
            content = deflate(content, encoding)
            headers = (*headers, (b"content-encoding", encoding.encode()), VARY)
        ctx.timer.lap("encode")
        return RawResponse(content, headers)

    return infer


def document_infer(app: FastAPI, state: ServiceState) -> None:
    for path in (INFER, INFER_VERSION):
        documented = infer_documented(parameters_of(path, state))
        summary = "Score a candidate list for a user"
        app.post(path, name="infer", summary=summary, **documented)(behind_the_gate)
