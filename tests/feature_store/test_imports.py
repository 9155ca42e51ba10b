"""What importing the store may not pull in."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["feature_store", "feature_store.__main__"])
def test_the_store_needs_no_training_libraries(module: str) -> None:
    look = f"import sys, {module}; print(sorted({{'torch', 'onnx', 'pandas'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_serving_from_a_store_needs_no_parquet() -> None:
    look = "import sys, feature_store; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
