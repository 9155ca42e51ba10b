"""The statistics extension: counts and times of each version, read from ``/metrics``.

So both agree, and both add up all processes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from service.observability.model_metrics import COUNT, LAST, SECONDS
from service.observability.version_stats import FAIL, STAGES, SUCCESS
from service.state import ServiceState

Sums = dict[tuple[str, ...], float]  # by metric, version and label


async def statistics(state: ServiceState, names: list[str]) -> dict[str, Any]:
    """Statistics of these versions."""
    sums = _read(await state.exporter.render())
    return {"model_stats": [_of(state.settings.model_name, name, sums) for name in names]}


def _of(model: str, version: str, sums: Sums) -> dict[str, Any]:
    def count(outcome: str) -> int:
        return int(sums.get((COUNT, version, outcome), 0))

    def duration(part: str, outcome: str) -> dict[str, int]:
        seconds = sums.get((SECONDS, version, part), 0.0)
        return {"count": count(outcome), "ns": round(1e9 * seconds)}

    parts = {SUCCESS: SUCCESS, FAIL: FAIL, **dict.fromkeys(STAGES, SUCCESS)}
    return {
        "name": model,
        "version": version,
        "last_inference": round(1e3 * sums.get((LAST, version), 0.0)),
        "inference_count": count(SUCCESS),
        "execution_count": count(SUCCESS),  # requests are not batched with one another
        "inference_stats": {
            **{part: duration(part, outcome) for part, outcome in parts.items()},
            "cache_hit": {"count": 0, "ns": 0},  # there is no cache of answers
            "cache_miss": {"count": 0, "ns": 0},
        },
        "batch_stats": [],
    }


@lru_cache(maxsize=1)  # a scrape is kept for a moment
def _read(exposition: bytes) -> Sums:
    wanted = (COUNT, SECONDS, LAST)
    lines = (line for line in exposition.decode().splitlines() if line.startswith(wanted))
    return {
        (family.name.removesuffix("_total"), *_labels(sample.labels)): sample.value
        for family in text_string_to_metric_families("\n".join([*lines, ""]))
        for sample in family.samples
    }


def _labels(labels: dict[str, str]) -> list[str]:
    """Label values, the version first."""
    others = [value for name, value in labels.items() if name != "version"]
    return [labels["version"], *others]
