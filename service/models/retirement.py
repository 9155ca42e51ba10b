"""The end of a version: its last answers given, its memory back with the system."""

from __future__ import annotations

import asyncio
import gc
import weakref
from time import perf_counter

from model_export.runtime import FoldedModel
from service.logs import logger
from service.models.memory import trim
from service.versions import Version, Versions

PATIENCE_S = 5.0  # for threads that still run a chunk for a request that was cut short
LOOKING_S = 0.02


async def retire(versions: Versions, box: list[Version]) -> None:
    """Wait for its requests, then free it. ``box`` holds the only other reference, and is emptied.

    It is freed in a thread of normal priority: that holds the interpreter for up to a few
    milliseconds, and a quiet thread would be kept waiting with it in its hands.
    """
    name = box[0].name
    await versions.drained(box[0])
    model = weakref.ref(box[0].model)
    await asyncio.to_thread(box.clear)
    await _gone(name, model)
    await asyncio.to_thread(trim)
    logger.info("unloaded", model_version=name)


async def _gone(name: str, model: weakref.ref[FoldedModel]) -> None:
    began = perf_counter()
    while model() is not None:
        if perf_counter() - began > PATIENCE_S:
            gc.collect()
            if model() is not None:
                logger.error("unloaded, but something still holds it", model_version=name)
            return
        await asyncio.sleep(LOOKING_S)
