"""Maps the keys of a ``QIN_variety_v9`` state_dict to shapes and to our names.

E embedding_dim, P and C the content embedding's width after and before its projection, A the
attention, R rows: RX = R·X. Of the network as published D = 2E + P is the item vector, X = 2E + 2D
the network. The level variant has both levels in the item vector, too, and the user in the
candidate's block: D = 4E + P, X = 3E + 2D.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Dimension = int | str  # a symbol has one size in all keys

TABLE = "embedding_layer.embedding_layer.embedding_layers"
LEVEL_NAMES = ("likes_level", "views_level")
FEATURES = ("user_id", *LEVEL_NAMES, "item_id", "item_tags")  # with tables, in the authors' order
TABLES = frozenset(f"{TABLE}.{name}.weight" for name in FEATURES)
_CONTENT = "embedding_layer.embedding_layer.feature_encoders.item_emb_d128.weight"
ROOTS = frozenset({"embedding_layer", "attention_layers", "qnn"})  # first parts of all keys
NORM_COUNT = "num_batches_tracked"  # of a batch norm, which no score uses
LAYERS = 4  # default for a file without layer keys

_SHAPES: dict[str, tuple[Dimension, ...]] = {
    f"{TABLE}.likes_level.weight": ("likes", "E"),
    f"{TABLE}.views_level.weight": ("views", "E"),
    f"{TABLE}.item_id.weight": ("items", "E"),
    f"{TABLE}.item_tags.weight": ("tags", "E"),
    _CONTENT: ("P", "C"),
    "attention_layers.W_q.weight": ("A", "D"),
    "attention_layers.W_k.weight": ("A", "D"),
    "attention_layers.W_v.weight": ("A", "D"),
    "attention_layers.W_o.weight": ("D", "A"),
    "qnn.fc.weight": (1, "X"),
    "qnn.fc.bias": (1,),
}
USER = f"{TABLE}.user_id.weight"
_LEVELS: dict[str, tuple[Dimension, ...]] = {
    USER: ("users", "E"),
    "attention_layers.W_o.bias": ("D",),
}


@dataclass(frozen=True, slots=True)
class Variant:
    """Keys outside the layers with their shapes, and the numbers of embeddings of width E."""

    name: str
    shapes: Mapping[str, tuple[Dimension, ...]]
    item: int  # in the item vector, besides the content's
    context: int  # in the candidate's block

    @property
    def has_levels(self) -> bool:
        """Whether items carry their levels, and users an embedding."""
        return self is LEVELS

    def widths(self, E: int, P: int) -> dict[str, int]:
        D = self.item * E + P
        return {"D": D, "X": self.context * E + 2 * D}


PUBLISHED = Variant("QIN_variety_v9", _SHAPES, item=2, context=2)
LEVELS = Variant("QIN_variety_v9 with users and levels", _SHAPES | _LEVELS, item=4, context=3)


def layer_keys(number: int) -> dict[str, tuple[Dimension, ...]]:
    """Keys of one quadratic layer."""
    linear, norm = f"qnn.layer.{number}.linear.0", f"qnn.norm.{number}"
    return {
        f"{linear}.weight": ("RX", "X"),
        f"{linear}.bias": ("RX",),
        f"{norm}.weight": ("X",),
        f"{norm}.bias": ("X",),
        f"{norm}.running_mean": ("X",),
        f"{norm}.running_var": ("X",),
        f"{norm}.{NORM_COUNT}": (),
        f"qnn.activation.{number}.weight": (1,),
    }


OURS: tuple[tuple[str, str], ...] = (  # pattern of theirs -> ours
    (rf"{TABLE}\.(likes_level|views_level)\.weight", r"context.\1.weight"),
    (rf"{TABLE}\.(item_id|item_tags)\.weight", r"item_vector.embedding.\1.weight"),
    (rf"{TABLE}\.user_id\.weight", "user_vector.embedding.{user}.weight"),
    (_CONTENT, "item_vector.embedding.item_emb_d128.weight"),
    (r"attention_layers\.(W_[qkvo])\.(weight|bias)", r"attention.\1.\2"),
    (r"qnn\.layer\.(\d+)\.linear\.0\.(weight|bias)", r"layers.\1.linear.\2"),
    (r"qnn\.norm\.(\d+)\.(\w+)", r"layers.\1.norm.\2"),
    (r"qnn\.activation\.(\d+)\.weight", r"layers.\1.activation.weight"),
    (r"qnn\.fc\.(weight|bias)", r"fc.\1"),
)
