"""Skips tests of OpenVINO, and of bfloat16, where plugin or processor are missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model_export.bundle import openvino

CPU_INFO = Path("/proc/cpuinfo")  # the plugin itself takes a second to load
CPU = CPU_INFO.read_text() if CPU_INFO.exists() else ""
INSTALLED = openvino.is_installed()
SUPPORTED = INSTALLED and "GenuineIntel" in CPU
HAS_BF16 = bool(re.search(r"\b(amx|avx512)_bf16\b", CPU))
EXTRA = "needs the extra openvino: pip install -c constraints.txt -e '.[openvino]'"
INTEL = "needs a processor that the plugin supports, one of Intel's" if INSTALLED else EXTRA

needs_plugin = pytest.mark.skipif(not SUPPORTED, reason=INTEL)
needs_bf16 = pytest.mark.skipif(
    not (SUPPORTED and HAS_BF16),
    reason="needs a processor with bfloat16" if SUPPORTED else INTEL,
)
