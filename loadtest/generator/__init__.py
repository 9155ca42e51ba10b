"""Sends requests on an open-loop schedule: workload, connections, generator processes.

May import ``loadtest.target``, ``units``, ``environment``.
Start reading at ``runner``, then ``process``.
"""
