"""Runs encoder bundles: texts in, unit vectors out; onnxruntime and tokenizers, no torch.

May import ``text.tokenizer``, ``model_export.bundle`` and ``feature_store``'s wording of errors;
opens no socket.
Start reading at ``encoder``, then ``packs`` and ``bundle``.
"""
