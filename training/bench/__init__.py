"""Benchmarks training steps: against the published network, and with few and many users.

May import ``feature_store``, ``training.loop``, ``training.data``, ``training.synthetic`` and the
modules on top of ``training``.
Start reading at ``steps``, then ``users``.
"""
