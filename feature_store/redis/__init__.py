"""The store on Redis: one server, Sentinel, or a cluster.

May import the contract, schema, codec and errors of ``feature_store``.
Start reading at ``store``.
"""
