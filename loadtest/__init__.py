"""Load test: sends an open-loop schedule of requests over HTTP and judges latency and scores.

May import ``feature_store`` and ``model_export.bundle``; of the service it uses HTTP alone.
Start reading at ``generator.runner``, then ``analysis.results``.
"""
