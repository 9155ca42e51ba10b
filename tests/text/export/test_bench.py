"""The benchmark's subjects answer alike, and it counts what is padded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from typer.testing import CliRunner

from tests.text import small
from tests.text.encoder.test_jinabert import VARIANTS, random_network
from text.__main__ import app
from text.corpus.corpus import Corpus
from text.export.bench import PlainExport, batches_of
from text.export.golden import exact
from text.tokenizer import Tokens


def test_the_plain_export_is_the_network(tmp_path: Path) -> None:
    for variant in VARIANTS:
        network = random_network(small.sizes(variant), 5)
        lengths = np.array([5, 3, 40, 17])
        ids = np.random.default_rng(0).integers(0, 280, lengths.sum()).astype(np.int32)
        offsets = np.cumsum([0, *lengths], dtype=np.int64)
        tokens = Tokens(ids, ids, offsets)
        plain = PlainExport(network, tmp_path, 1)
        vectors = plain.vectors(tokens, batches_of(tokens, is_sorted=True))
        assert np.abs(vectors - exact(network, tokens)).max() <= 2e-6


def test_bench_reports_every_subject(checkpoint: Path, corpus: Corpus) -> None:
    words = ["bench", str(checkpoint), str(corpus.folder), "--texts", "80", "--seconds", "0.1"]
    done = CliRunner().invoke(app, [*words, "--longest", "300", "--pack", "16:64", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout.splitlines()[-1])
    names = ["packs", "packs 16:64", "padded_sorted", "padded_unsorted", "packs_from_text"]
    assert list(result["subjects"]) == names
    of = {name: result["subjects"][name] for name in names[:-1]}
    assert all(figures["max_abs_difference"] <= 2e-6 for figures in of.values())
    padding = [of[name]["places_per_token"] for name in ("padded_unsorted", "padded_sorted")]
    assert padding[0] > padding[1] > 1
    assert result["left_out"] + result["texts"] == 80
    assert [bar["bar"] for bar in result["bars"]] == ["unsorted_over_packs", "sorted_over_packs"]
