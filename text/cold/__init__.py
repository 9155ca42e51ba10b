"""Measures how well items without a click are ranked by their words, against other contents.

May import ``training``, ``text.corpus``, ``text.evaluate``, ``text.content``, ``text.runtime``,
``text.tokenizer``, ``text.ablate`` (its kept results) and ``model_export.bundle``.
Start reading at ``measure``, then ``contents``.
"""
