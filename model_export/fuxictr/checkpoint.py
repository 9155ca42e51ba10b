"""Imports the authors' checkpoints (FuxiCTR's ``.model``, a PyTorch state_dict).

Every key is checked against a table of symbolic shapes. Sizes are decided by a majority of the
tensors, so that a single odd one is reported. Missing, surplus and misshapen keys are reported
together: counted, and the first few of each kind named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import ValidationError
from torch import Tensor

from feature_store.schema import FeatureSchema
from model_export.bundle.errors import BundleError
from model_export.fuxictr.faults import judge
from model_export.fuxictr.names import (
    FEATURES,
    LEVEL_NAMES,
    LEVELS,
    OURS,
    TABLE,
    TABLES,
    USER,
    Variant,
)
from training.qin import QIN, QINSizes


def import_network(
    state: Mapping[str, Tensor],
    slots: int,
    history_length: int,
    source: str,
    user: str = "user_id",
) -> QIN:
    """Build the network, in eval mode. Raises BundleError listing all faults.

    ``user``: the name of the level variant's user feature.
    """
    judged = judge(state)
    if judged.faults:
        raise BundleError(f"{source}: {judged}")
    variant, sizes = judged.variant, judged.sizes
    try:
        schema = _schema(variant, sizes, slots, history_length, user)
        network = QIN(
            schema,
            QINSizes(
                attention_width=sizes["A"],
                layers=judged.layers,
                rows=sizes["R"],
                output_bias=variant.has_levels,
            ),
        )
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = _origin_of(fault["loc"], variant.has_levels)
        raise BundleError(f"{source}: sizes beyond those served: {where}: {fault['msg']}") from None
    tensors = {_our_name(key, user): tensor for key, tensor in state.items()}
    for name in schema.shared:  # one table under two names
        tensors[f"item_vector.embedding.{name}.weight"] = tensors[f"context.{name}.weight"]
    network.load_state_dict(tensors)
    return network.eval()


def _schema(
    variant: Variant, sizes: Mapping[str, int], slots: int, history_length: int, user: str
) -> FeatureSchema:
    """MicroLens' features in the authors' order, at the checkpoint's sizes."""
    width = sizes["E"]
    vocabularies = (sizes["likes"], sizes["views"])
    levels = [_categorical(n, v, width) for n, v in zip(LEVEL_NAMES, vocabularies, strict=True)]
    tags = _categorical("item_tags", sizes["tags"], width)
    content = {"name": "item_emb_d128", "kind": "dense", "size": sizes["C"], "width": sizes["P"]}
    item = [
        _categorical("item_id", sizes["items"], width),
        {**tags, "kind": "categorical_list", "slots": slots},
        content,
    ]
    users: dict[str, object] = {}
    if variant.has_levels:
        item = levels + item
        users["user"] = [_categorical(user, sizes["users"], width)]
        users["user_identity"] = user
    return FeatureSchema.model_validate(
        {
            "name": "microlens-1m-levels" if variant.has_levels else "microlens-1m",
            "history_length": history_length,
            **users,
            "item": item,
            "identity": "item_id",
            "context": levels,
        }
    )


def order_warning(state: Mapping[str, Tensor]) -> str | None:
    """Describe embedding tables in another order than the authors' features.

    FuxiCTR registers tables in the order of its features, which is that of the network's inputs. A
    file sorted by name has lost the order.
    """
    found = [
        key.removeprefix(f"{TABLE}.").removesuffix(".weight") for key in state if key in TABLES
    ]
    authors = [name for name in FEATURES if name in found]
    if found in (authors, sorted(found)):
        return None
    return (
        f"tables are in the order {', '.join(found)}, and imported as {', '.join(authors)}: of a "
        "network trained with another order of features the scores differ"
    )


def _origin_of(place: tuple[int | str, ...], has_levels: bool) -> str:
    """What a field of the schema or of the sizes is read from: a tensor, or what was given."""
    match place:
        case (*_, "slots"):
            return "item_tags, the most of an item"
        case ("history_length",):
            return "--history"
        case ("user", *_):
            return USER
        case ("item", int(number), *_):
            names = (*FEATURES[1 if has_levels else 3 :], "item_emb_d128")
            return next(key for key in LEVELS.shapes if f".{names[number]}." in key)
        case ("context", int(number), *_):
            return f"{TABLE}.{LEVEL_NAMES[number]}.weight"
        case ("rows",):
            return "qnn.layer.0.linear.0.weight: rows"
        case ("attention_width",):
            return "attention_layers.W_q.weight"
    return ".".join(map(str, place))


def _categorical(name: str, vocabulary: int, width: int) -> dict[str, object]:
    return {"name": name, "kind": "categorical", "vocabulary": vocabulary, "width": width}


def _our_name(key: str, user: str) -> str:
    for pattern, ours in OURS:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, ours.format(user=user), key)
    raise AssertionError(key)
