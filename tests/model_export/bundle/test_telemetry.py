"""onnxruntime sends nothing and leaves nothing behind, in both rooms that load it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUPPRESSED_BY = ("ORT_", "CI", "PYTEST_", "GITHUB_", "TF_BUILD", "XDG_")


@pytest.mark.parametrize(
    "module", ["model_export.bundle.sessions", "service.observability.metrics"]
)
def test_onnxruntime_makes_no_device_id(module: str, tmp_path: Path) -> None:
    environment = {n: v for n, v in os.environ.items() if not n.startswith(SUPPRESSED_BY)}
    program = f"import {module}, onnxruntime; onnxruntime.SessionOptions()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.rglob("*onnxruntime*")) == []
