"""The worker that scores samples in the background."""

from __future__ import annotations

import asyncio
import weakref

from service.lifecycle.sampled_worker import QUEUED, SampledWorker
from service.server.listener import poll_until


class Sample:
    """Can be referred to weakly."""


async def test_samples_beyond_the_queue_are_refused() -> None:
    go_on, processed = asyncio.Event(), list[Sample]()

    async def process(sample: Sample) -> None:
        await go_on.wait()
        processed.append(sample)

    worker = SampledWorker[Sample]("shadow", 64, process)
    try:
        taken = [worker.offer(Sample()) for _ in range(QUEUED + 2)]
        assert taken == [True] * QUEUED + [False] * 2
        go_on.set()
        async with asyncio.timeout(30):
            await poll_until(lambda: len(processed) == QUEUED)
        assert worker.offer(Sample())
    finally:
        await worker.close()


async def test_a_processed_sample_is_not_kept_while_the_worker_waits() -> None:
    """It holds a version, which is freed when it is unloaded."""
    done = asyncio.Event()

    async def process(sample: Sample) -> None:
        done.set()

    worker = SampledWorker[Sample]("shadow", 64, process)
    try:
        sample = Sample()
        kept = weakref.ref(sample)
        assert worker.offer(sample)
        del sample
        async with asyncio.timeout(30):
            await done.wait()
            await poll_until(lambda: kept() is None)
    finally:
        await worker.close()
