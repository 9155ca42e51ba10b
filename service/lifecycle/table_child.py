"""Fills an item table in a child process: ``python -m service.lifecycle.table_child``.

Deriving a catalogue takes the GIL again and again; here it is not the service's. The table is a
file that is given open, so this process opens none for writing. The job, one line of JSON, comes
by the standard input: a store's URL may hold a password, which command lines and environments
show. Lines of JSON go out: ``done``, the items that were read so far; last, what the table was
filled with, or the fault.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from service.artifacts.sandbox_child import confine

REPORT_EVERY_S = 0.25


def main(memory_bytes: str, niceness: str) -> None:
    # What is mapped of files, the table and an LMDB store, is no data.
    confine(int(memory_bytes), None, int(niceness), resource.RLIMIT_DATA)
    with suppress(OSError):  # if memory runs out it is this process that the system ends
        Path("/proc/self/oom_score_adj").write_text("1000")
    import orjson

    from feature_store.errors import StoreError
    from model_export.bundle.errors import BundleError, said

    def say(**fields: Any) -> None:
        os.write(sys.stdout.fileno(), orjson.dumps(fields) + b"\n")

    try:
        say(filled=asyncio.run(_fill(orjson.loads(sys.stdin.buffer.readline()), say)))
    except StoreError as error:
        say(fault="store", reason=str(error))
    except BundleError as error:
        say(fault="bundle", reason=str(error))
    except MemoryError:
        say(fault="memory", reason="out of memory")
    except Exception as error:  # onnxruntime's errors have no other common base
        say(fault="unknown", reason=said(error))


async def _fill(job: dict[str, Any], say: Any) -> dict[str, Any]:
    """``job``: ``bundle``, ``store``, and ``descriptor`` and ``capacity`` of the table."""
    import feature_store
    from model_export.bundle.bundle import Bundle, read_manifest
    from model_export.bundle.runtime import FoldedModel
    from service.items.table import ItemTable
    from service.items.table_fill import PATIENT, fill
    from service.items.table_layout import TableMemory

    folder = Path(job["bundle"])
    model = FoldedModel(Bundle(folder, read_manifest(folder)))  # its files have just been verified
    memory = TableMemory.of_file(job["descriptor"], model.schema)
    table = ItemTable(model.schema, job["capacity"], memory)
    seen, said_at = 0, 0.0

    def advance(count: int) -> None:
        nonlocal seen, said_at
        seen += count
        if perf_counter() - said_at > REPORT_EVERY_S:
            said_at = perf_counter()
            say(done=seen)

    options = replace(PATIENT, read_only=True)  # no write lock of LMDB is waited for
    store = await feature_store.connect(job["store"], model.schema, options=options)
    try:
        return asdict(await fill(table, model, store, advance))
    finally:
        await store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
