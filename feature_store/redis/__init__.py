"""Implements the feature store on Redis: one server, Sentinel, or a cluster.

May import the modules on top of ``feature_store``, not the other rooms.
Start reading at ``store``.
"""
