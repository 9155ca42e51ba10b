"""Runs ``python -m loadtest``, the command line of the load test."""

from __future__ import annotations

import signal

from feature_store.terminal import escape_unencodable
from loadtest.cli.app import app

if __name__ == "__main__":
    escape_unencodable()
    # SIGTERM (``timeout``, a CI job) ends a run like Ctrl-C: with a report of what was measured.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app(prog_name="python -m loadtest")
