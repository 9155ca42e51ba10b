"""Schemas unlike each other: the default's shape made small, and the corners around it."""

from __future__ import annotations

from feature_store.schema import FeatureSchema
from training.qin import QINSizes

SMALL_SIZES = QINSizes(attention_width=24, layers=3, rows=2)

SMALL = FeatureSchema.from_yaml(
    """
name: small
history_length: 12
item:
  - {name: item_id, kind: categorical, vocabulary: 50, width: 8}
  - {name: item_tags, kind: categorical_list, vocabulary: 20, slots: 4, width: 8}
  - {name: content, kind: dense, size: 6, width: 8, storage: float16}
identity: item_id
context:
  - {name: likes_level, vocabulary: 11, width: 8}
  - {name: views_level, vocabulary: 7, width: 8}
""",
    source="small",
)

IDENTITY_ONLY = FeatureSchema.from_yaml(
    """
name: identity-only
history_length: 1
item: [{name: item_id, kind: categorical, vocabulary: 9, width: 5}]
identity: item_id
""",
    source="identity-only",
)

WITHOUT_IDENTITY = FeatureSchema.from_yaml(
    """
name: without-identity
history_length: 5
item:
  - {name: words, kind: categorical_list, vocabulary: 30, slots: 1, width: 3}
  - {name: picture, kind: dense, size: 10, width: 4}
  - {name: text, kind: dense, size: 3, width: 2}
  - {name: genres, kind: categorical_list, vocabulary: 5, slots: 3, width: 6}
context: [{name: position, vocabulary: 2000, width: 4}]
""",
    source="without-identity",
)

MANY_CONTEXTS = FeatureSchema.from_yaml(
    """
name: many-contexts
history_length: 4
item:
  - {name: brand, kind: categorical, vocabulary: 12, width: 4}
  - {name: item_id, kind: categorical, vocabulary: 40, width: 4}
identity: item_id
context:
  - {name: hour, vocabulary: 25, width: 2}
  - {name: weekday, vocabulary: 8, width: 3}
  - {name: device, vocabulary: 6, width: 4}
  - {name: campaign, vocabulary: 1500, width: 1}
  - {name: slot, vocabulary: 2, width: 2}
""",
    source="many-contexts",
)

# X = 400. Not among ALL: its networks are large.
WIDE = FeatureSchema.from_yaml(
    """
name: wide
history_length: 64
item:
  - {name: item_id, kind: categorical, vocabulary: 2000, width: 50}
  - {name: item_tags, kind: categorical_list, vocabulary: 300, slots: 5, width: 50}
  - {name: content, kind: dense, size: 128, width: 50}
identity: item_id
context:
  - {name: likes_level, vocabulary: 11, width: 50}
  - {name: views_level, vocabulary: 11, width: 50}
""",
    source="wide",
)

LEVELS = FeatureSchema.from_yaml(
    """
name: levels
history_length: 6
user:
  - {name: user_id, kind: categorical, vocabulary: 70001, width: 4}
  - {name: country, kind: categorical, vocabulary: 5, width: 3}
  - {name: followed, kind: categorical_list, vocabulary: 90000, slots: 3, width: 3}
  - {name: likes, kind: categorical_list, vocabulary: 9, slots: 2, width: 2}
  - {name: taste, kind: dense, size: 4, width: 3, storage: float16}
user_identity: user_id
request:
  - {name: device, kind: categorical, vocabulary: 4, width: 2}
  - {name: hour, kind: numeric, width: 2}
item:
  - {name: likes_level, kind: categorical, vocabulary: 11, width: 4}
  - {name: item_id, kind: categorical, vocabulary: 40, width: 4}
  - {name: content, kind: dense, size: 5, width: 6}
identity: item_id
context:
  - {name: likes_level, vocabulary: 11, width: 4}
  - {name: slot, vocabulary: 3, width: 2}
""",
    source="levels",
)
LEVELS_SIZES = QINSizes(attention_width=24, layers=3, rows=2, output_bias=True)

REQUEST_ONLY = FeatureSchema.from_yaml(
    """
name: request-only
history_length: 3
request: [{name: hour, kind: numeric, width: 3}]
item: [{name: item_id, kind: categorical, vocabulary: 9, width: 5}]
""",
    source="request-only",
)

USER_ONLY = FeatureSchema.from_yaml(
    """
name: user-only
history_length: 3
user: [{name: user_id, kind: categorical, vocabulary: 300, width: 6}]
user_identity: user_id
item: [{name: item_id, kind: categorical, vocabulary: 9, width: 5}]
context: [{name: slot, vocabulary: 3, width: 16}]
""",
    source="user-only",
)

ALL = (SMALL, IDENTITY_ONLY, WITHOUT_IDENTITY, MANY_CONTEXTS, LEVELS, REQUEST_ONLY, USER_ONLY)
