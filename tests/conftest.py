"""What every test process wants, whichever room it tests."""

import training  # noqa: F401 — decides how OpenMP waits, before anything loads torch
