"""The ranker on a GPU: one script that proves and measures it where there is one."""
