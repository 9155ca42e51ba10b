"""The store in an LMDB file on this machine.

May import the contract, schema, codec and errors of ``feature_store``.
Start reading at ``store``.
"""
