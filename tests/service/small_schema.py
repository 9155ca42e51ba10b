"""The schema of the small world, for processes that need no network: torch takes seconds."""

from __future__ import annotations

from feature_store.schema import FeatureSchema

SMALL = FeatureSchema.from_yaml(
    """
name: small
history_length: 12
item:
  - {name: item_id, kind: categorical, vocabulary: 500, width: 8}
  - {name: item_tags, kind: categorical_list, vocabulary: 40, slots: 4, width: 8}
  - {name: content, kind: dense, size: 6, width: 8, storage: float16}
identity: item_id
context:
  - {name: likes_level, vocabulary: 11, width: 8}
  - {name: views_level, vocabulary: 7, width: 8}
""",
    source="small",
)
