"""Learns: parquet files in, a Quadratic Interest Network checkpoint out."""

import os

# A waiting OpenMP thread sleeps instead of spinning. On cores shared with anything else, spinning
# made an epoch of the demo take 3 min 30 s where sleeping takes 28 s. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
