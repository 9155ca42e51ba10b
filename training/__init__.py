"""Training: parquet files in, a checkpoint of the Quadratic Interest Network (QIN) out.

May import ``feature_store``.
Start reading at ``qin``, then ``loop.fit``.
"""

import gc
import logging
import os

# Waiting OpenMP threads sleep instead of spinning, which is much slower where cores are shared with
# other work. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Net growth, in objects, before the collector looks for garbage (default 700). Importing torch
# makes half a million objects and no garbage; of its time the collector took a tenth.
gc.set_threshold(50_000)

# Its warnings are advice on its own configuration, such as MPLCONFIGDIR where the home directory
# cannot be written.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
