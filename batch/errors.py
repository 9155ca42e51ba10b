"""The errors of a batch run; each message is one line for an operator, and names the remedy."""

from __future__ import annotations


class BatchError(Exception):
    """Base of the tree."""


class OutputConflict(BatchError):
    """The output folder belongs to a run with other inputs or options, or to one under way."""


class WorkerFailed(BatchError):
    """A worker could not do its unit, or ended again and again."""


class StoreGone(BatchError):
    """The feature store did not answer within the patience of a batch run, or lost its data."""
