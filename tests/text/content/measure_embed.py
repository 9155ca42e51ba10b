"""Kills ``text embed`` (SIGKILL) at drawn moments, resumes it, and compares the tables' bytes.

``python -m tests.text.content.measure_embed [--items 70000] [--kills 10] [--bundle BUNDLE]
[--folder FOLDER] [--json]``: items with one or two short texts, 105,000 in all; without a bundle, a
network of the sizes of ``demo`` with random weights. A measure that is stopped goes on in FOLDER.
Exit code 1 if the bytes differ, a kill came too late, or the undisturbed process had more than
1.5 GB resident.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.text import small

MOST_BYTES = 1.5e9
POLL_S = 0.02


def bundle_of_random_weights(folder: Path) -> Path:
    """Build a bundle with a map of principal components."""
    import torch

    from text.content.fit import fit
    from text.content.items import ItemTexts
    from text.encoder.checkpoint import save
    from text.encoder.jinabert import JinaBert
    from text.encoder.presets import RECIPES
    from text.export.build import build
    from text.runtime.encoder import TextEncoder
    from text.tokenizer import TextTokenizer

    words = (" ".join(small.WORDS) for _ in range(9))
    sizes = RECIPES.preset("demo").sizes.model_copy(update={"vocabulary": 280})
    torch.manual_seed(0)
    network = JinaBert(sizes).eval()
    save(folder / "checkpoint", network, None, TextTokenizer.train(words, 280), {})
    plain = build(folder / "checkpoint", folder / "plain", version="v1", longest=64)
    items(folder / "few.parquet", 2000)
    few = ItemTexts(folder / "few.parquet", (), ())
    fitted = fit(TextEncoder(plain), few, "item_emb_d16", size=16)
    (folder / "map.npz").write_bytes(fitted.encoded())
    content = folder / "map.npz"
    built = build(
        folder / "checkpoint", folder / "mapped", version="v1", longest=64, content=content
    )
    return built.path


def items(path: Path, count: int) -> None:
    """Write items with an English text of 2 to 6 words, half of them with a German one."""
    draw = np.random.default_rng(0)

    def text() -> str:
        return " ".join(draw.choice(small.WORDS, draw.integers(2, 7)))

    english = [text() for _ in range(count)]
    german = [text() if draw.random() < 0.5 else None for _ in range(count)]
    table = {"item_id": range(1, count + 1), "text_en": english, "text_de": german}
    pq.write_table(pa.table({n: pa.array(values) for n, values in table.items()}), path)


def started(bundle: Path, table: Path, out: Path) -> subprocess.Popen[bytes]:
    words = ["-m", "text", "embed", str(bundle), str(table), "--out", str(out), "--json"]
    return subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def undisturbed(bundle: Path, table: Path, out: Path) -> dict[str, Any]:
    began = time.monotonic()
    process = started(bundle, table, out)
    assert process.stderr is not None
    said = process.stderr.read()  # to its end
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(said.decode())
    seconds = time.monotonic() - began
    return {"seconds": round(seconds, 1), "most_resident_bytes": usage.ru_maxrss * 1024}


def killed(bundle: Path, table: Path, out: Path, after_pieces: int, delay_s: float) -> int | None:
    """Kill a run a while after it has so many pieces; return how many it had, None if it ended."""
    process = started(bundle, table, out)
    folder = out.with_name(f".{out.name}.run")
    while process.poll() is None:
        if len(list(folder.glob("piece-*.parquet"))) >= after_pieces:
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(POLL_S)
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        return None
    return len(list(folder.glob("piece-*.parquet")))


def measured(folder: Path, bundle: Path, count: int, kills: int, seed: int) -> dict[str, Any]:
    from text.content.embed import PIECE

    table, whole, out, file = (folder / n for n in ("items.parquet", "whole", "out", "about.json"))
    if file.exists():
        about = json.loads(file.read_text())
    else:
        items(table, count)
        about = {"items": count, "pieces": -(-count // PIECE)}
        about |= undisturbed(bundle, table, whole) | {"killed_with_pieces": []}
        file.write_text(json.dumps(about))
    pieces, found, draw = about["pieces"], about["killed_with_pieces"], random.Random(seed)
    for kill in range(kills):
        at = kill * pieces // kills + draw.randrange(max(1, pieces // kills))
        delay_s = draw.uniform(0, about["seconds"] / pieces)
        if kill >= len(found):
            found.append(killed(bundle, table, out, at, delay_s))
            file.write_text(json.dumps(about))
    undisturbed(bundle, table, out)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (whole, out)]
    about["items_per_second"] = round(about["items"] / about["seconds"])
    return about | {"same_bytes": digests[0] == digests[1]}


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--items", type=int, default=70_000)
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--seed", type=int, default=0, help="Of the moments.")
    options.add_argument("--bundle", type=Path, help="An encoder bundle with a map.")
    options.add_argument("--folder", type=Path, help="Of the tables; a temporary one by default.")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = given.bundle or bundle_of_random_weights(Path(folder))
        kept = given.folder or Path(folder)
        kept.mkdir(parents=True, exist_ok=True)
        report = measured(kept, bundle, given.items, given.kills, given.seed)
    print(json.dumps(report) if given.json else "\n".join(f"{k}: {v}" for k, v in report.items()))
    enough = report["most_resident_bytes"] <= MOST_BYTES
    all_killed = None not in report["killed_with_pieces"]
    return 0 if report["same_bytes"] and enough and all_killed else 1


if __name__ == "__main__":
    sys.exit(main())
