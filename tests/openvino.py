"""Skips tests of OpenVINO, and of bfloat16, where plugin or processor are missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model_export.bundle import openvino

CPU_INFO = Path("/proc/cpuinfo")  # the plugin itself takes a second to load
INSTALLED = openvino.is_installed()
HAS_BF16 = CPU_INFO.exists() and bool(re.search(r"\b(amx|avx512)_bf16\b", CPU_INFO.read_text()))
EXTRA = "needs the extra openvino: pip install -c constraints.txt -e '.[openvino]'"

needs_plugin = pytest.mark.skipif(not INSTALLED, reason=EXTRA)
needs_bf16 = pytest.mark.skipif(
    not (INSTALLED and HAS_BF16),
    reason="needs a processor with bfloat16" if INSTALLED else EXTRA,
)
