"""``python -m training compare``: what features bring that one of two checkpoints lacks."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training.cli.console import AsJson, Cache, Users, exit_on_error, fail, progress

if TYPE_CHECKING:
    from feature_store.schema import FeatureSchema

ROLES = ("item", "context", "user", "request")


def compare(
    folder: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="With the features.")],
    without: Annotated[Path, typer.Argument(metavar="WITHOUT", help="Checkpoint without them.")],
    data: Annotated[Path, typer.Argument(help="Folder with train, valid, item_info parquet.")],
    users: Users = None,
    cache: Cache = None,
    as_json: AsJson = False,
) -> None:
    """Compare AUC on DATA/valid.parquet of two networks, one trained without some features."""
    from training import checkpoint
    from training.data.dataset import open_held_out
    from training.evaluation.evaluate import best_auc, share_of_the_possible
    from training.evaluation.metrics import auc
    from training.loop.fit import predict

    folders = (folder, without)
    with exit_on_error(), progress() as on_progress:
        networks = [checkpoint.load(each) for each in folders]
        further = _further(networks[0].schema, networks[1].schema)
        if further is None:
            fail(f"{without}: not a network of the features of {folder} without some of them")
        recipe = _difference(folder, without)
        found = []
        for each, network in zip(folders, networks, strict=True):
            index = each / checkpoint.USER_INDEX
            valid, _ = open_held_out(data, network.schema, on_progress, cache, users, index)
            found.append(auc(predict(network, valid, on_progress=on_progress), valid.label))
        if isnan(found[0]):
            fail(f"{data / 'valid.parquet'}: column label: the same in every row: there is no AUC")
    figures: dict[str, Any] = {"features": further, "rows": len(valid), "recipe": recipe}
    figures |= {"auc": found[0], "auc_without": found[1]}
    if (best := best_auc(data)) is not None:
        figures["best_auc"] = best
        shares = [share_of_the_possible(each, best) for each in found]
        figures |= {"share_of_the_possible": shares[0], "share_without": shares[1]}
        if not (networks[1].schema.user or networks[1].schema.request):
            ceiling = best_auc(data, "best_auc_valid_without_features")
            figures |= {} if ceiling is None else {"best_auc_without": ceiling}
    if as_json:
        print(json.dumps(figures))
        return
    names = ", ".join(name for of_role in further.values() for name in of_role)
    print(
        f"AUC with {' and '.join(further)} features ({names}): {found[0]:.4f}; "
        f"without: {found[1]:.4f} ({recipe}, {len(valid):,} validation rows)"
    )
    if best is None:
        return
    most = ""
    if ceiling := figures.get("best_auc_without"):
        most = f" (at best {share_of_the_possible(ceiling, best):.3f}: AUC {ceiling:.4f})"
    print(
        f"share of what is possible, (AUC − 0.5) / ({best:.4f} − 0.5): "
        f"{shares[0]:.3f} with; {shares[1]:.3f} without{most}"
    )


def _further(schema: FeatureSchema, other: FeatureSchema) -> dict[str, list[str]] | None:
    """The features that ``other`` lacks, by role; None if it lacks none or has further ones."""
    ours, theirs = (
        {(role, f.name) for role in ROLES for f in getattr(each, role)} for each in (schema, other)
    )
    if not theirs < ours:
        return None
    lacking = {
        role: [f.name for f in getattr(schema, role) if (role, f.name) not in theirs]
        for role in ROLES
    }
    return {role: names for role, names in lacking.items() if names}


def _difference(folder: Path, other: Path) -> str:
    """Say how the recipes of two checkpoints compare."""
    from training.checkpoint import read_metrics
    from training.recipe import Recipe, differences

    kept = [read_metrics(each).get("recipe") for each in (folder, other)]
    if None in kept:
        return "of unknown recipes"
    first, second = (Recipe.model_validate(each).model_dump_json() for each in kept)
    if first == second:
        return "trained by the same recipe"
    return f"trained by another recipe{differences(second, first)}"
