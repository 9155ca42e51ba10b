"""Counts how tables of other writers are read.

``python -m tests.feature_store.parquet.measure_writers --tables 2000 --json``; exit code 1 if one
is read wrongly.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.feature_store.parquet.other_tables import CONTENTS, compare, content_of


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tables", type=int, default=2000)
    options.add_argument("--first", type=int, default=0, help="Seed of the first table.")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    outcomes: Counter[str] = Counter(equal=0, refused=0, wrong=0)
    by_content = {content: Counter(outcomes) for content in CONTENTS}
    faults = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(given.first, given.first + given.tables):
            room = Path(folder) / str(seed)
            room.mkdir()
            result = compare(seed, room)
            outcomes[result.outcome] += 1
            by_content[content_of(seed)][result.outcome] += 1
            if result.outcome == "wrong":
                faults.append(result.what)
            shutil.rmtree(room)
    report = {"tables": given.tables, **outcomes, **by_content, "faults": faults[:10]}
    print(json.dumps(report) if given.json else "\n".join(f"{k}: {v}" for k, v in report.items()))
    return 1 if outcomes["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
