"""Searches over recipes: a study of trials, each a training run that may be pruned.

May import ``feature_store``, ``training.loop``, ``training.data``, ``training.evaluation`` and the
modules on top of ``training``.
Start reading at ``tune``, then ``study``.
"""
