"""Fits maps from vectors of texts, and given ones, to an item feature; embeds tables; no torch.

May import ``text.runtime``, ``text.tokenizer``, ``model_export.bundle`` and ``feature_store``.
Start reading at ``fit`` and ``embed``, then ``items`` and ``moments``.
"""
