"""Implements the feature store in an LMDB folder on this machine.

May import the modules on top of ``feature_store``, not the other rooms.
Start reading at ``store``.
"""
