"""What every test process wants, whichever room it tests."""

import signal

import training  # noqa: F401 — decides how OpenMP waits, before anything loads torch

# A shell starts what it puts in the background with SIGINT ignored, and children inherit that; the
# tests of Ctrl-C need it delivered.
signal.signal(signal.SIGINT, signal.default_int_handler)
