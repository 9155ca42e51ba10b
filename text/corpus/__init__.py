"""Builds a corpus: Debian packages or files of one's own in; texts, pairs and tasks out.

May import ``feature_store``'s wording of errors and ``training``'s progress callback; no torch.
Start reading at ``build``, then ``corpus`` for the reader.
"""
