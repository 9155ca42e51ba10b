"""Names the processor of this machine, and the features that products in few bits depend on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

CPU_INFO = Path("/proc/cpuinfo")
# In the order in which they came: the later, the more multiply-adds per cycle.
FEATURES = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
)
Kind = Literal["amx", "vnni", "other"]


@dataclass(frozen=True, slots=True)
class Processor:
    """The processor, as /proc/cpuinfo describes it; all cores must be alike in a feature."""

    name: str
    features: tuple[str, ...]  # those of FEATURES
    digest: str  # of everything that tells kinds apart, and nothing that changes

    @property
    def kind(self) -> Kind:
        """What its fastest products are computed by."""
        if {"amx_bf16", "amx_int8"} <= set(self.features):
            return "amx"
        return "vnni" if {"avx_vnni", "avx512_vnni"} & set(self.features) else "other"

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.features) or 'none of the features looked for'})"


def processor(cpu_info: Path = CPU_INFO) -> Processor:
    """Read the processor's name and features; unknown ones where there is no /proc."""
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        lines = []
    named = re.compile(r"(model name|cpu family|model|flags|Features|CPU part)\s*:\s*(.*)")
    found = [(m.group(1), m.group(2)) for line in lines if (m := named.match(line))]
    digest = hashlib.sha256(repr(sorted(set(found))).encode()).hexdigest()[:16]
    flags = [set(value.split()) for key, value in found if key == "flags"]
    common = set.intersection(*flags) if flags else set[str]()
    first = dict(reversed(found))
    name = first.get("model name") or first.get("CPU part") or "unknown processor"
    if "cpu family" in first:
        name += f", family {first['cpu family']}, model {first.get('model', '?')}"
    return Processor(name, tuple(f for f in FEATURES if f in common), digest)
