"""MLPerf LoadGen's Server scenario against ``POST /v1/score``: ``python loadgen_client.py URL BODY
RATE SECONDS TARGET_MS FOLDER`` leaves LoadGen's own logs in FOLDER. Needs mlcommons-loadgen."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import aiohttp
import mlperf_loadgen as loadgen


class Client:
    """LoadGen's thread says when; an event loop of our own sends and tells it when answers came."""

    def __init__(self, url: str, body: bytes) -> None:
        self._url, self._body = url, body
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._session = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    async def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=512))

    def issue(self, samples: list[Any]) -> None:
        for sample in samples:
            self._loop.call_soon_threadsafe(self._start, sample.id)

    def _start(self, sample_id: int) -> None:
        task = self._loop.create_task(self._ask(sample_id))
        task.add_done_callback(lambda done: done.result())

    async def _ask(self, sample_id: int) -> None:
        headers = {"Content-Type": "application/json"}
        async with self._session.post(self._url, data=self._body, headers=headers) as answer:
            answer.raise_for_status()
            await answer.read()
        loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(sample_id, 0, 0)])

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._session.close(), self._loop).result()


def main(url: str, body: bytes, rate: float, seconds: float, target_ms: float, folder: str) -> None:
    settings = loadgen.TestSettings()
    settings.scenario = loadgen.TestScenario.Server
    settings.mode = loadgen.TestMode.PerformanceOnly
    settings.server_target_qps = rate
    settings.server_target_latency_ns = int(target_ms * 1e6)
    settings.server_target_latency_percentile = 0.99
    settings.min_duration_ms = int(1e3 * seconds)
    settings.max_query_count = int(rate * seconds)
    output = loadgen.LogOutputSettings()
    output.outdir = folder
    output.copy_summary_to_stdout = False
    logs = loadgen.LogSettings()
    logs.log_output = output
    client = Client(url, body)
    sut = loadgen.ConstructSUT(client.issue, lambda: None)
    library = loadgen.ConstructQSL(1, 1, lambda indices: None, lambda indices: None)
    loadgen.StartTestWithLogSettings(sut, library, settings, logs)
    loadgen.DestroyQSL(library)
    loadgen.DestroySUT(sut)
    client.close()


if __name__ == "__main__":
    address, text, *numbers, out = sys.argv[1:]
    main(address, text.encode(), float(numbers[0]), float(numbers[1]), float(numbers[2]), out)
