"""Maps the keys of a ``QIN_variety_v9`` state_dict to shapes and to our names.

E embedding_dim, P and C the content embedding's width after and before its projection, D = 2E + P
the item vector, A the attention, X = 2E + 2D the network, R rows: RX = R·X.
"""

from __future__ import annotations

Dimension = int | str  # a symbol has one size in all keys

_TABLE = "embedding_layer.embedding_layer.embedding_layers"
_CONTENT = "embedding_layer.embedding_layer.feature_encoders.item_emb_d128.weight"
ROOTS = frozenset({"embedding_layer", "attention_layers", "qnn"})  # first parts of all keys
LAYERS = 4  # default for a file without layer keys

SHAPES: dict[str, tuple[Dimension, ...]] = {
    f"{_TABLE}.likes_level.weight": ("likes", "E"),
    f"{_TABLE}.views_level.weight": ("views", "E"),
    f"{_TABLE}.item_id.weight": ("items", "E"),
    f"{_TABLE}.item_tags.weight": ("tags", "E"),
    _CONTENT: ("P", "C"),
    "attention_layers.W_q.weight": ("A", "D"),
    "attention_layers.W_k.weight": ("A", "D"),
    "attention_layers.W_v.weight": ("A", "D"),
    "attention_layers.W_o.weight": ("D", "A"),
    "qnn.fc.weight": (1, "X"),
    "qnn.fc.bias": (1,),
}
EMBEDDING = frozenset(key for key in SHAPES if key.startswith(_TABLE))


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
        f"{norm}.num_batches_tracked": (),
        f"qnn.activation.{number}.weight": (1,),
    }


OURS: tuple[tuple[str, str], ...] = (  # pattern of theirs -> ours
    (rf"{_TABLE}\.(likes_level|views_level)\.weight", r"context.\1.weight"),
    (rf"{_TABLE}\.(item_id|item_tags)\.weight", r"item_vector.embedding.\1.weight"),
    (_CONTENT, "item_vector.embedding.item_emb_d128.weight"),
    (r"attention_layers\.(W_[qkvo])\.weight", r"attention.\1.weight"),
    (r"qnn\.layer\.(\d+)\.linear\.0\.(weight|bias)", r"layers.\1.linear.\2"),
    (r"qnn\.norm\.(\d+)\.(\w+)", r"layers.\1.norm.\2"),
    (r"qnn\.activation\.(\d+)\.weight", r"layers.\1.activation.weight"),
    (r"qnn\.fc\.(weight|bias)", r"fc.\1"),
)
