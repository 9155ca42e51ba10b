"""Implements the training loop: gradients on one or several processes, optimiser, kept state.

May import ``feature_store``, ``training.data``, ``training.evaluation`` and the modules on top of
``training``.
Start reading at ``fit``, then ``optimiser`` and ``run``.
"""
