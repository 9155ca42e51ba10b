"""Trains and imports text encoders: network, objectives, three stages, checkpoints.

May import ``feature_store``, ``training``'s recipe files, progress, checks of checkpoints and what
keeps a stopped run (``training.loop``), ``text.corpus`` and ``text.tokenizer``; torch.
Start reading at ``fit``, then ``stages``, ``jinabert`` and ``published``.
"""
