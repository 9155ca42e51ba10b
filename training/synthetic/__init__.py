"""Writes synthetic data in the challenge's format, with the best AUC that a model can reach.

May import ``feature_store``, the modules on top of ``training``, and ``training.evaluation``.
Start reading at ``synthesize``, then ``click_model``.
"""
