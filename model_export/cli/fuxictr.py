"""``python -m model_export import-fuxictr``: convert a FuxiCTR checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from model_export.cli import options
from model_export.cli.app import print_json, refusals


def import_fuxictr(
    model: Annotated[Path, typer.Argument(help="FuxiCTR's .model file: a PyTorch state_dict.")],
    items: Annotated[
        list[Path], typer.Option(help="Item table (parquet); further ones are joined by id.")
    ],
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
    history: Annotated[int, typer.Option(min=1, help="Longest history it was trained on.")] = 64,
    users: Annotated[
        Path | None,
        typer.Option(
            help="Users file (parquet: user_id, user_index), if indices are not the users' ids."
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Convert a QIN_variety_v9 checkpoint, with or without users and levels, of any sizes."""
    with refusals():
        from feature_store.parquet.columns import DataFileError
        from feature_store.wording import with_file
        from model_export.bundle.errors import BundleError
        from model_export.fuxictr.checkpoint import import_network, order_warning
        from model_export.fuxictr.items import slots_of
        from model_export.fuxictr.names import USER
        from model_export.fuxictr.state_file import read_state
        from model_export.fuxictr.users import INDEX, indices_of
        from training import checkpoint
        from training.data.catalogue import Catalogue

        try:
            checkpoint.check_out(out)
        except checkpoint.CheckpointError as error:
            raise BundleError(str(error)) from error
        state, changes = read_state(model)
        if changes:
            typer.echo(f"{model}: {'; '.join(changes)}", err=True)
        try:
            slots = slots_of(items)
            identity = "user_id" if users is None else INDEX
            network = import_network(state, slots, history, str(model), identity)
            if warning := order_warning(state):
                typer.echo(f"{model}: {warning}", err=True)
            if USER in state and bool(state[USER][0].any()):  # FuxiCTR's, without a padding_idx
                told = "row 0 of user_id is not zero: unknown users are scored with it"
                typer.echo(f"{model}: {told}", err=True)
            catalogue = Catalogue.read(items, network.schema)
            summary: dict[str, Any] = {"imported_from": model.name, "items": len(catalogue) - 1}
            files = {}
            if users is not None:
                table = indices_of(users, network.schema)
                summary["users"] = len(table.ids)
                files[checkpoint.USER_INDEX] = table.parquet()
            checkpoint.save(out, network, summary, files)
        except (DataFileError, checkpoint.CheckpointError, OSError) as error:
            raise BundleError(with_file(error)) from error
        sizes = network.sizes
        parameters = sum(p.numel() for p in network.parameters())
        if as_json:
            print_json(
                {"checkpoint": str(out), "parameters": parameters, **sizes.model_dump(), **summary}
            )
            return
        typer.echo(
            f"checkpoint: {out}: {parameters:,} parameters, {sizes.layers} quadratic layers of "
            f"{network.schema.network_width} with {sizes.rows} rows; its item table has "
            f"{len(catalogue) - 1:,} items"
            + (f", and {out / checkpoint.USER_INDEX} {summary['users']:,} users" if users else "")
        )
