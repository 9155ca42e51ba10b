"""Tests claims by ablation: arms that differ in one thing, over several seeds, and a verdict.

May import ``training``, ``text.corpus``, ``text.tokenizer``, ``text.encoder``, ``text.evaluate``.
Start reading at ``run``, then ``claims``.
"""
