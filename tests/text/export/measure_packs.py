"""Measures the packed graph against PyTorch in float64, alone and in random packs.

``python -m tests.text.export.measure_packs [CHECKPOINT] --packs 1000 --json``; without a checkpoint
random weights of the demo's sizes. Exit code 1 beyond the bar.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.bundle.sessions import open_session
from tests.text.encoder.test_jinabert import random_network
from text.encoder.checkpoint import load
from text.encoder.sizes import EncoderSizes
from text.export.bench import processor
from text.export.folded import FoldedEncoder
from text.export.golden import exact
from text.export.packed import packed
from text.export.shared_weights import save
from text.runtime.packs import Pack, tokens_of
from text.tokenizer import Tokens

BAR = 2e-6
MOST_ROWS, ROOM = 8, 600  # of a pack
Random = np.random.Generator


def some_tokens(count: int, vocabulary: int, random: Random) -> Tokens:
    """Random ids; lengths from 3 to 512, mostly short."""
    lengths = np.minimum(3 + random.exponential(40, count).astype(np.int64), 512)
    lengths[:4] = 3, 4, 511, 512
    ids = random.integers(0, vocabulary, lengths.sum()).astype(np.int32)
    return Tokens(ids, ids, np.cumsum([0, *lengths], dtype=np.int64))


def random_pack(lengths: NDArray[np.int64], random: Random) -> Pack:
    """Rows of texts drawn at random, with a random part of each left as padding."""
    rows, length = [], 0
    order = random.permutation(len(lengths)).tolist()
    for _ in range(random.integers(1, MOST_ROWS + 1)):
        room, row = int(random.integers(3, ROOM)), []
        while order and lengths[order[-1]] <= room:
            room -= int(lengths[order[-1]])
            row.append(order.pop())
        if row:
            rows.append(tuple(row))
            length = max(length, int(lengths[row].sum()) + int(random.integers(0, 5)))
        elif order:
            order.insert(0, order.pop())
    return Pack(length, tuple(rows)) if rows else random_pack(lengths, random)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("checkpoint", nargs="?", type=Path)
    options.add_argument("--packs", type=int, default=1000)
    options.add_argument("--texts", type=int, default=150)
    options.add_argument("--variant", choices=("base", "qk_norm", "code"), default="base")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    random = np.random.default_rng(0)
    if given.checkpoint:
        network = load(given.checkpoint).network
    else:
        network = random_network(EncoderSizes(variant=given.variant), 0).float()
    tokens = some_tokens(given.texts, network.sizes.vocabulary, random)
    wanted = exact(network, tokens)
    with tempfile.TemporaryDirectory() as folder:
        save([packed(FoldedEncoder.of(network))], Path(folder), "encoder.weights")
        session = open_session(Path(folder) / "encoder.onnx", 1)

    def run(pack: Pack) -> NDArray[np.float32]:
        laid = tokens_of(pack, tokens.ids, tokens.offsets)
        (found,) = session.run(["embedding"], {"ids": laid.ids, "text": laid.text})
        return np.asarray(found[laid.row, laid.number])

    singles = [run(Pack(int(tokens.lengths[i]), ((i,),))) for i in range(len(tokens))]
    alone = np.concatenate(singles)
    in_packs = company = 0.0
    texts = 0
    for _ in range(given.packs):
        pack = random_pack(tokens.lengths, random)
        found, own = run(pack), list(pack.texts)
        texts += len(own)
        in_packs = max(in_packs, float(np.abs(found - wanted[own]).max()))
        company = max(company, float(np.abs(found - alone[own]).max()))
    report = {
        "processor": processor(),
        "network": str(given.checkpoint or f"random weights, {given.variant}"),
        "packs": given.packs,
        "texts_in_packs": texts,
        "max_abs_error_alone": float(np.abs(alone - wanted).max()),
        "max_abs_error_in_packs": in_packs,
        "max_abs_difference_of_company": company,
        "bar": BAR,
    }
    figures = ("max_abs_error_alone", "max_abs_error_in_packs", "max_abs_difference_of_company")
    report["met"] = all(report[name] <= BAR for name in figures)
    print(json.dumps(report) if given.json else "\n".join(f"{k}: {v}" for k, v in report.items()))
    return 0 if report["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
