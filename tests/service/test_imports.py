"""Serving needs neither torch nor onnx nor pandas: every module, in a fresh interpreter."""

from __future__ import annotations

import importlib.util
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = ("torch", "onnx", "pandas", "tritonclient")
CHECK = f"""
import importlib, sys
for name in {BLOCKED!r}:
    sys.modules[name] = None  # importing it now fails
for module in sys.argv[1:]:
    importlib.import_module(module)
"""


def modules(room: str) -> list[str]:
    spec = importlib.util.find_spec(room)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    paths = list(spec.submodule_search_locations)
    return [room, *(m.name for m in pkgutil.walk_packages(paths, f"{room}."))]


@pytest.mark.parametrize(
    "room",
    [
        *("service", "feature_store", "loadtest", "batch"),
        *("text.corpus", "text.runtime", "text.content"),
    ],
)
def test_a_room_of_the_runtime_imports_without_the_training_packages(room: str) -> None:
    found = modules(room)
    assert len(found) > 3
    done = subprocess.run(
        [sys.executable, "-c", CHECK, *found],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
