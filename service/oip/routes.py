"""The protocol's routes on the public port."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from service.ask import ask
from service.errors import UnknownModel, UnknownVersion
from service.exchange import INFER, INFER_VERSION, exchange_of
from service.house import House
from service.oip.binary import LENGTH_HEADER, json_length
from service.oip.compression import PLAIN, deflate, read_inflated, wanted_encoding
from service.oip.message import read_message
from service.oip.outputs import response, wanted_outputs
from service.oip.parameters import asked_priority, ignored, refuse_sequences, seconds_allowed
from service.oip.tensors import question_of

LONGEST_VERSION = 64


def asked_version(house: House, request: Request) -> str | None:
    """The version in the path, which may be an alias. UnknownModel, UnknownVersion."""
    model, version = request.path_params["model"], request.path_params.get("version")
    if model != house.settings.model_name:
        raise UnknownModel(f"the only model is {house.settings.model_name!r}")
    if version is not None and len(version) > LONGEST_VERSION:
        raise UnknownVersion(f"no version has a name of {len(version)} letters")
    return version


def add_infer(app: FastAPI, house: House) -> None:
    settings = house.settings

    async def infer(request: Request) -> Response:
        exchange, asked = exchange_of(request), asked_version(house, request)
        body = await read_inflated(request, settings.max_body_bytes)
        exchange.timings.lap("receive")

        start = json_length(request.headers.getlist(LENGTH_HEADER), len(body))
        message = read_message(body[:start])
        refuse_sequences(message)
        wanted = wanted_outputs(message)
        question = question_of(message, body, start, settings.max_candidates)
        deadline = exchange.timings.started + seconds_allowed(message, request, settings)
        exchange.priority = asked_priority(message, exchange.priority)
        version, answer = await ask(house, request, question, asked, deadline)

        members: dict[str, Any] = {"model_name": settings.model_name, "model_version": version}
        if message.id is not None:
            members["id"] = message.id
        content, headers = response(answer, wanted, members, ignored(message))
        encoding = wanted_encoding(request.headers.get("accept-encoding"))
        if encoding != PLAIN:
            content = deflate(content, encoding)
            headers |= {"Content-Encoding": encoding, "Vary": "Accept-Encoding"}
        exchange.timings.lap("encode")
        house.swap.answered(question, answer)
        return Response(content, headers=headers)

    for path in (INFER, INFER_VERSION):
        app.post(path, summary="Score a candidate list for a user")(infer)
