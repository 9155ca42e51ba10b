"""``python -m loadtest``: asks a scoring service, open loop, and gives a verdict."""

from __future__ import annotations

from loadtest.app import app

if __name__ == "__main__":
    app(prog_name="python -m loadtest")
