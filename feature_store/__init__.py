"""Stores user behaviour histories and item features, in LMDB or Redis.

May import no other room. Start reading at ``contract``.
"""

from feature_store.connect import connect
from feature_store.contract import FeatureStore, ItemBatch
from feature_store.errors import StoreError
from feature_store.schema import FeatureSchema

__all__ = ["FeatureSchema", "FeatureStore", "ItemBatch", "StoreError", "connect"]
