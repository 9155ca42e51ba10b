"""Evaluation of texts of 8,192 tokens, in memory that does not grow with their square."""

from __future__ import annotations

import resource
import shutil
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow as pa
import torch

from tests.text.encoder.killing import CONTEXT
from tests.text.rewritten import rewrite
from text.corpus.corpus import Corpus
from text.corpus.tables import SCHEMAS
from text.encoder.jinabert import JinaBert
from text.encoder.presets import RECIPES
from text.encoder.vectors import TorchEncoder
from text.evaluate.encoders import Cosine
from text.evaluate.tasks import evaluate
from text.tokenizer import TextTokenizer

TOKENS = 8192
SMALL = ("sizes.hidden=16", "sizes.intermediate=16", "sizes.layers=1", "sizes.heads=4")
MOST_MB = 900  # one attention matrix of four heads has 1,024 MB; the allocator keeps freed blocks


def with_planted_texts(tiny: Corpus, folder: Path) -> Corpus:
    """Return the corpus with two documents, one of more tokens than an encoder takes."""
    shutil.copytree(tiny.folder, folder)
    filler = " ".join(tiny.texts("en")["text"].to_pylist() * 20)
    where = {"task": f"planted-{TOKENS}", "lang": "en", "source": "tiny", "split": "test"}
    rows: dict[str, list[dict[str, object]]] = {"documents": [], "queries": []}
    for name, text in (("first", f"first {filler}"[: 8 * TOKENS]), ("second", "second")):
        rows["documents"].append(where | {"id": name, "text": text, "words": 0})
        rows["queries"].append(where | {"id": f"{name}?", "text": name, "relevant": [name]})
    for table, own in rows.items():
        rewrite(folder, table, pa.Table.from_pylist(own, SCHEMAS[table]))
    return Corpus.open(folder)


def evaluated(folder: Path, answer: Connection) -> None:
    """Send the tokens of the documents, the results and the growth of resident memory in MB."""
    torch.set_num_threads(1)
    corpus = Corpus.open(folder)
    texts = corpus.texts("en")["text"].to_pylist()
    sizes = RECIPES.resolve("tiny", settings=SMALL).sizes
    tokenizer = TextTokenizer.train(texts, sizes.vocabulary)
    encoder = TorchEncoder(JinaBert(sizes), tokenizer, longest=TOKENS)
    encoder.encode(texts[:2])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results = evaluate(Cosine("mine", encoder), corpus, ["lengths"])
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    documents = corpus.documents(f"planted-{TOKENS}")["text"].to_pylist()
    lengths = tokenizer.encode(documents, TOKENS).lengths.tolist()
    answer.send((lengths, results, (after - before) / 1024))


def test_lengths_of_8192_tokens_are_evaluated_in_little_memory(
    tiny: Corpus, tmp_path: Path
) -> None:
    corpus = with_planted_texts(tiny, tmp_path / "corpus")
    answer, sender = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=evaluated, args=(corpus.folder, sender))
    process.start()
    sender.close()
    lengths, results, grown_mb = answer.recv()
    process.join(60)
    assert max(lengths) == TOKENS
    assert [(result.task, result.metric, result.pool) for result in results] == [
        (f"planted-{TOKENS}", metric, 2) for metric in ("ndcg@10", "accuracy@1")
    ]
    assert all(0 <= result.value <= 1 for result in results)
    assert grown_mb < MOST_MB
