"""What the times mean: quantiles, stages, service levels, queueing theory.

May import ``loadtest.generator``'s plan and columns.
Start reading at ``results``.
"""
