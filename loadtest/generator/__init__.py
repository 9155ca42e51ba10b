"""Sends requests on an open-loop schedule: workload, connections, generator processes.

May import ``loadtest.target``, ``units``, ``environment``, and what ``loadtest`` may.
Start reading at ``runner``, then ``process``.
"""
