"""Implements ``python -m text cold-items``."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from text.cli.console import AsJson, exit_on_error, progress, screen
from text.cli.content import Threads
from text.cli.encoder import CorpusFolder

if TYPE_CHECKING:
    from text.ablate.results import Result
    from text.cold.verdict import Condition

TEST_ROWS = 400  # of the file without labels, which is not read
NAMES = ("none", "tf-idf", "pca", "ridge", "planted")
CACHE_BYTES = 256 << 20  # of vectors: a seed's texts are encoded once


def cold_items(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder of an encoder bundle.")],
    corpus: CorpusFolder,
    out: Annotated[Path, typer.Option(help="Folder of results; a rerun does what is missing.")],
    seeds: Annotated[int, typer.Option(min=1, max=99, help="Worlds and networks.")] = 3,
    train: Annotated[int | None, typer.Option(min=4, help="Training rows.")] = None,
    valid: Annotated[int | None, typer.Option(min=4, help="Validation rows.")] = None,
    cold: Annotated[int | None, typer.Option(min=4, help="Rows of cold items.")] = None,
    size: Annotated[int | None, typer.Option(min=1, max=4096, help="Numbers of a content.")] = None,
    least_tags: Annotated[int, typer.Option(min=1, help="Tags that an item must have.")] = 4,
    epochs: Annotated[int, typer.Option(min=1, help="Most epochs of a network.")] = 2,
    contents: Annotated[
        str | None, typer.Option(metavar="NAME,…", help=f"Of {', '.join(NAMES)}; default all.")
    ] = None,
    threads: Threads = 1,
    as_json: AsJson = False,
) -> None:
    """Rank items without a click by contents: none, tf-idf, the encoder's, and the planted one.

    Networks are trained with texts in the first language of CORPUS. Cold items have a text in that
    language, and then in the second one alone.
    """
    names = contents.split(",") if contents else list(NAMES)
    for name in names:
        if name not in NAMES:
            raise typer.BadParameter(
                f"{name} is none of {', '.join(NAMES)}", param_hint="'--contents'"
            )
    with exit_on_error(), progress() as on_progress:
        from text.cold.contents import ARMS
        from text.cold.measure import Experiment
        from text.cold.verdict import conditions
        from text.runtime.cache import VectorCache
        from text.runtime.encoder import TextEncoder
        from training.cli.console import given
        from training.recipe_files import resolve
        from training.synthetic.sizes import SIZES
        from training.synthetic.tagged_items import TaggedItems

        sizes = dataclasses.replace(
            SIZES["catalogue"],
            test=TEST_ROWS,
            **given(train=train, valid=valid, cold=cold, embedding=size),
        )
        experiment = Experiment(
            TextEncoder.open(bundle, threads, cache=VectorCache(CACHE_BYTES)),
            TaggedItems.read(corpus, least_tags),
            sizes,
            resolve("demo", None, (), {"epochs": epochs}),
            out,
            on_progress,
            [arm for arm in ARMS if arm in names],
        )
        results = experiment.run(range(seeds))
        judged = conditions(results)
    if as_json:
        found = {
            "encoder": experiment.encoder.bundle.digest,
            "languages": list(experiment.tagged.texts)[:2],
            "items": len(experiment.tagged),
            "cold_items": int(experiment.tagged.cold.sum()),
            "results": [dataclasses.asdict(result) for result in results],
            "conditions": [each.to_json() for each in judged],
        }
        print(json.dumps(found))
    else:
        show(results, judged, list(experiment.tagged.texts)[:2])


def show(results: list[Result], judged: list[Condition], languages: list[str]) -> None:
    """Print means over seeds, and each condition's figures."""
    first, second = languages
    table = Table(
        "content", f"AUC {first}", f"AUC {second}", f"share {first}", f"share {second}", "AUC valid"
    )
    names = ("auc_first", "auc_second", "share_first", "share_second", "auc_valid")
    for arm in dict.fromkeys(each.arm for each in results):
        own = [each.figures for each in results if each.arm == arm]
        means = (statistics.mean(figures[name] for figures in own) for name in names)
        table.add_row(arm, *(f"{mean:.4f}" for mean in means))
    screen.print(table)
    for each in judged:
        values = ", ".join(f"{value:+.3f}" for value in each.values.values())
        screen.print(
            f"{each.arm}: {each.name}: {values}; at least {each.least:+.2f}: "
            f"{'holds' if each.holds else 'does not hold'}",
            markup=False,
            highlight=False,
        )
