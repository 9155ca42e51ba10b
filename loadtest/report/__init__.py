"""What a run leaves: a page, figures, logs and columns for other tools.

May import analysis, generator.
Start reading at ``report``.
"""
