"""Splits of generated files: no group in two of them, no held-out text in training."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from text.corpus.archives import Archives
from text.corpus.build import build
from text.corpus.corpus import Corpus
from text.corpus.duplicates import words

SENTENCES = [f"{a} {b} reads a letter in {c}" for a in "XY" for b in "UV" for c in ("1", "2", "R")]
text = st.sampled_from(SENTENCES) | st.sampled_from(SENTENCES).map(lambda s: f"{s.upper()}!")
line = st.fixed_dictionaries(
    {
        "id": st.sampled_from("abcdefghij"),
        "lang": st.sampled_from(["en", "de"]),
        "text": text,
        "group": st.sampled_from([f"g{n}" for n in range(12)]),
    }
)
pair = st.fixed_dictionaries(
    {"text_a": text, "text_b": text, "langs": st.just("en-de"), "group": st.just("g3")}
    | {"split": st.sampled_from(["train", "valid", "test"])},
    optional={"score": st.just(0.5)},
)


texts_by_id = st.lists(
    line, min_size=1, max_size=20, unique_by=lambda row: (row["id"], row["lang"])
).map(lambda rows: sorted(rows, key=lambda row: row["id"]))  # lines of one id are together


@given(texts_by_id, st.lists(pair, max_size=12))
@settings(max_examples=40, deadline=None)
def test_no_group_and_no_text_is_in_two_splits(
    lines: list[dict[str, str]], pairs: list[dict[str, object]]
) -> None:
    for number, each in enumerate(pairs):
        each["group"] = f"p{number}"
    with TemporaryDirectory() as name:
        folder = Path(name) / "mine"
        folder.mkdir()
        for file, rows in (("a.jsonl", lines), ("b.jsonl", [p for p in pairs if "score" in p]),
                           ("c.jsonl", [p for p in pairs if "score" not in p])):  # fmt: skip
            (folder / file).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        build(folder.parent / "out", ["en", "de"], {}, [folder], Archives(folder))
        corpus = Corpus.open(folder.parent / "out")
        groups, found = defaultdict(set), defaultdict(set)
        for row in corpus.texts().to_pylist():
            groups[row["group"]].add(row["split"])
            found[row["lang"], *words(row["text"])].add(row["split"])
        for table in (corpus.pairs(), corpus.graded()):
            for row in table.to_pylist():
                for side in "ab":
                    found[row[f"lang_{side}"], *words(row[f"text_{side}"])].add(row["split"])
    assert all(len(splits) == 1 for splits in groups.values())
    assert not [key for key, splits in found.items() if "train" in splits and splits != {"train"}]
