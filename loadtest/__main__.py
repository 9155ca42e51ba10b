"""``python -m loadtest``: asks a scoring service, open loop, and gives a verdict."""

from __future__ import annotations

import signal

from loadtest.cli.app import app

if __name__ == "__main__":
    # Whoever stops it by SIGTERM (``timeout``, a CI job) gets the report of what there is as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app(prog_name="python -m loadtest")
