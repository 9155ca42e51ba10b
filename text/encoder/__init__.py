"""Trains and imports text encoders: network, objectives, three stages, checkpoints.

May import ``training``'s recipe files and progress, ``text.corpus`` and ``text.tokenizer``; torch.
Start reading at ``fit``, then ``stages``, ``jinabert`` and ``published``.
"""
