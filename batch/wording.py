"""Words expected errors as one line."""

from __future__ import annotations

from batch.errors import BatchError
from feature_store.errors import StoreError
from feature_store.parquet.columns import DataFileError
from feature_store.schema import SchemaError
from feature_store.terminal import printable
from feature_store.wording import with_file
from model_export.bundle.errors import BundleError

EXPECTED = (
    *(BatchError, DataFileError, StoreError, SchemaError, BundleError, OSError),
    UnicodeEncodeError,  # of a path that is not UTF-8
)


def worded_fault(error: Exception) -> str:
    """Return the line of an expected error."""
    return printable(" ".join(with_file(error).split()))
