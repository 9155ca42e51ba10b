"""Runs ``python -m loadtest``, the command line of the load test."""

from __future__ import annotations

import signal
from functools import partial

from feature_store.terminal import run
from loadtest.cli.app import app

if __name__ == "__main__":
    # SIGTERM (``timeout``, a CI job) ends a run like Ctrl-C: with a report of what was measured.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(partial(app, prog_name="python -m loadtest"))
