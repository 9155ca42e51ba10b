"""Remembers: user behaviour histories and item features, in LMDB or Redis."""
