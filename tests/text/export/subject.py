"""Runs one graph in a process of its own: ``python -m tests.text.export.subject GRAPH``.

Prints its memory once loaded; then, for every line ``{"ids": FILE, "to": FILE, "spare": NUMBER}``,
encodes and prints seconds, seconds of the processor, and the peak of memory above the loaded graph.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

SHRINK = "memory.enable_memory_arena_shrinkage"


def main(graph: str) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    inputs = {value.name for value in session.get_inputs()}
    found = [v.name for v in session.get_outputs() if v.name != "token"]
    shrink = onnxruntime.RunOptions()
    shrink.add_run_config_entry(SHRINK, "cpu:0")
    ctypes.CDLL(None).malloc_trim(0)
    loaded = _status("VmRSS")
    print(json.dumps({"loaded_mb": loaded}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        ids = np.load(asked["ids"])
        feed: dict[str, Any] = {"ids": ids[None], "mask": np.ones((1, len(ids)), np.int64)}
        if "spare" in inputs:
            feed = {"ids": ids, "spare": np.array(asked["spare"], np.float32)}
        Path("/proc/self/clear_refs").write_text("5")  # the peak is reset
        began, processor = time.perf_counter(), time.process_time()
        answers = dict(zip(found, session.run(found, feed, shrink), strict=True))
        seconds, processor = time.perf_counter() - began, time.process_time() - processor
        np.savez(asked["to"], **answers)
        peak = _status("VmHWM") - loaded
        print(json.dumps({"s": seconds, "cpu_s": processor, "peak_mb": peak}), flush=True)


def _status(name: str) -> float:
    """A line of /proc/self/status in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1000


if __name__ == "__main__":
    main(sys.argv[1])
