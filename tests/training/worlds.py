"""Small schemas and networks for this room's tests."""

from __future__ import annotations

from feature_store.schema import FeatureSchema
from training.qin import QINSizes

SIZES = QINSizes(attention_width=12, layers=2, rows=3)

SMALL = FeatureSchema.from_yaml(
    """
name: small
history_length: 6
item:
  - {name: item_id, kind: categorical, vocabulary: 40, width: 4}
  - {name: item_tags, kind: categorical_list, vocabulary: 20, slots: 3, width: 6}
  - {name: item_emb_d128, kind: dense, size: 5, width: 4, storage: float16}
identity: item_id
context:
  - {name: likes_level, vocabulary: 11, width: 3}
  - {name: views_level, vocabulary: 11, width: 2}
""",
    source="small",
)
