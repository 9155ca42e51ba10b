"""Names the kind of processor: scores are equal to the bit on processors of one kind alone."""

from __future__ import annotations

import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
# What the runtime's matrix kernels are chosen by.
DECIDING = ("fma", "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile")
IDENTITY = ("vendor_id", "cpu family", "model")


def processor_kind(cpu_info: Path = CPU_INFO) -> str:
    """Return architecture, model and the instruction sets that decide how products are summed."""
    try:
        text = cpu_info.read_text()
    except OSError:
        return platform.machine()
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    identity = "/".join(fields.get(name, "?") for name in IDENTITY)
    return " ".join([platform.machine(), identity, *(name for name in DECIDING if name in flags)])
