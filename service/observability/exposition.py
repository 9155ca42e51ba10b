"""Snapshots of a process's metrics: stored as JSON, merged, written in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic
from typing import NamedTuple

import orjson
from prometheus_client.core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from service.observability.metrics import Merge, Metrics

COUNTED = ("counter", "histogram")
SUFFIX = {"counter": "_total", "info": "_info"}  # of the name that the text format shows
Turn = Callable[[], Awaitable[None]]  # awaited between slices of work, for requests to run
ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


async def at_once() -> None:
    """The turn of work that need not wait."""


class Family(NamedTuple):
    """One metric. ``samples`` are its lines of Prometheus's text format, in their order: all up
    to the number, and the number."""

    name: str
    kind: str  # counter, gauge, histogram, info
    documentation: str
    merge: Merge
    samples: dict[str, float]


class Snapshot(NamedTuple):
    """The metrics of one process."""

    written: float  # ``monotonic``, one clock for all processes of a machine; 0: it has ended
    families: list[Family]

    @classmethod
    def now(cls, families: list[Family], *, leaving: bool) -> Snapshot:
        return cls(0.0 if leaving else monotonic(), families)

    @classmethod
    def read(cls, content: bytes) -> Snapshot:
        written, families = orjson.loads(content)
        return cls(written, [Family(*family) for family in families])

    def content(self) -> bytes:
        return orjson.dumps(self, default=list)

    def age(self) -> float:
        return monotonic() - self.written

    def counters(self) -> list[Family]:
        return [family for family in self.families if family.kind in COUNTED]


class Writer:
    """Makes families of metrics; caches each line's name and labels."""

    def __init__(self, metrics: Metrics) -> None:
        self._merges = metrics.merges
        self._known: dict[tuple[str, ...], str] = {}

    def family(self, metric: Metric) -> Family:
        over: Merge = "max" if metric.type == "info" else self._merges.get(metric.name, "sum")
        samples = {self._line(sample): sample.value for sample in metric.samples}
        return Family(metric.name, metric.type, metric.documentation, over, samples)

    def _line(self, sample: Sample) -> str:
        key = (sample.name, *sample.labels.values())
        if (line := self._known.get(key)) is None:
            labels = sorted(sample.labels.items())
            pairs = ",".join(f'{name}="{value.translate(ESCAPES)}"' for name, value in labels)
            line = self._known[key] = sample.name + (f"{{{pairs}}}" if pairs else "")
        return line


def merge(many: Iterable[Sequence[Family]]) -> list[Family]:
    """Merge families of the same name, and in them lines of the same labels."""
    found: dict[str, Family] = {}
    for families in many:
        for family in families:
            if (into := found.get(family.name)) is None:
                found[family.name] = family._replace(samples=dict(family.samples))
                continue
            sums = into.samples
            for line, value in family.samples.items():
                if line not in sums:
                    sums[line] = value
                elif family.merge == "sum":
                    sums[line] += value
                else:
                    sums[line] = (min if family.merge == "min" else max)(sums[line], value)
    return list(found.values())


def exposition(families: Iterable[Family]) -> bytes:
    """Write families in Prometheus's text format."""
    return b"".join(map(_written, families))


async def exposition_in_turns(families: Iterable[Family], turn: Turn) -> bytes:
    """``exposition``, with a turn between families."""
    parts = []
    for family in families:
        parts.append(_written(family))
        await turn()
    return b"".join(parts)


def _written(family: Family) -> bytes:
    name, kind, documentation, _, samples = family
    shown, said = name + SUFFIX.get(kind, ""), documentation.replace("\\", r"\\")
    lines = [f"# HELP {shown} {said}", f"# TYPE {shown} {'gauge' if kind == 'info' else kind}"]
    lines += [f"{line} {floatToGoString(value)}" for line, value in samples.items()]  # type: ignore[no-untyped-call]
    return ("\n".join(lines) + "\n").encode()
