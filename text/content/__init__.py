"""Fits maps from vectors of texts, and given ones, to the numbers of a model's feature; no torch.

May import ``text.runtime``, ``text.tokenizer``, ``model_export.bundle`` and ``feature_store``.
Start reading at ``fit``, then ``items`` and ``moments``.
"""
