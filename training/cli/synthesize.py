"""``python -m training synthesize``: synthetic data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.cli.console import AsJson, exit_on_error, given, progress, screen
from training.output import writing

LEAST_TAGS = 4  # one of them a package's section


def synthesize(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    preset: Annotated[Literal["demo", "taste", "challenge"], typer.Option(help="Sizes.")] = "demo",
    train: Annotated[int | None, typer.Option(min=4, help="Rows.")] = None,
    valid: Annotated[int | None, typer.Option(min=4, help="Rows.")] = None,
    test: Annotated[int | None, typer.Option(min=4, help="Rows.")] = None,
    items: Annotated[int | None, typer.Option(min=10, help="Catalogue size.")] = None,
    tags: Annotated[int | None, typer.Option(min=1, help="Distinct tags.")] = None,
    embedding: Annotated[int | None, typer.Option(min=1, help="Content embedding size.")] = None,
    history: Annotated[int | None, typer.Option(min=1, help="History length L.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    catalogue: Annotated[
        Path | None,
        typer.Option(
            metavar="CORPUS", help="Items with their texts from a folder of `text corpus build`."
        ),
    ] = None,
    least_tags: Annotated[
        int | None,
        typer.Option(
            min=1, help=f"With --catalogue: tags that an item must have; default {LEAST_TAGS}."
        ),
    ] = None,
    cold: Annotated[
        int | None, typer.Option(min=4, help="With --catalogue: rows of cold items alone.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write synthetic data in the challenge's format; print the best AUC that a model can reach."""
    from training.synthetic.sizes import SIZES
    from training.synthetic.synthesize import synthesize as run
    from training.synthetic.tagged_items import TaggedItems

    if catalogue and (preset != "demo" or items or tags):
        raise typer.BadParameter("not with --preset, --items or --tags", param_hint="--catalogue")
    for option, value in (("--cold", cold), ("--least-tags", least_tags)):
        if value and not catalogue:
            raise typer.BadParameter("requires --catalogue", param_hint=option)
    counts = given(train=train, valid=valid, test=test, items=items, tags=tags, cold=cold)
    changed = counts | given(embedding=embedding, history=history)
    with exit_on_error(), writing(out), progress() as on_progress:
        sizes = dataclasses.replace(SIZES["catalogue" if catalogue else preset], **changed)
        tagged = TaggedItems.read(catalogue, least_tags or LEAST_TAGS) if catalogue else None
        truth = run(out, sizes, seed, on_progress, tagged)
    if as_json:
        print(json.dumps(dataclasses.asdict(truth)))
        return
    screen.print(
        f"{out}: {sizes.train:,} training rows, {truth.sizes.items:,} items, "
        f"{truth.positives_train:.1%} positive; "
        f"best AUC any model could reach on valid: {truth.best_auc_valid:.4f}",
        markup=False,
    )
    if tagged:
        screen.print(
            f"{truth.cold_items:,} cold items, {truth.cold_items_of_one_language:,} of them with "
            f"{list(tagged.texts)[1]} texts alone; best AUC on cold: {truth.best_auc_cold:.4f}",
            markup=False,
        )
