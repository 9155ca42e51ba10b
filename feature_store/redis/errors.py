"""Redis's errors in the store's own terms."""

from __future__ import annotations

import redis.exceptions as told

from feature_store.errors import StoreError, StoreFull, StoreRefused, StoreUnavailable

# Answers that a server gives while it cannot serve anybody: they count against it.
NOT_SERVING = (told.BusyLoadingError, told.ClusterDownError)
# Errors that arrive as a reply, so that the connection is still in step.
REPLIES = (told.ResponseError, told.BusyLoadingError, told.AuthenticationError)

_REMEDIES = {
    told.AuthenticationError: "mend the password in the store's URL",
    told.NoPermissionError: "the user lacks a permission (redis-cli ACL LIST)",
    told.ReadOnlyError: "it is a replica: give the master's address, or use redis+sentinel://",
    told.OutOfMemoryError: "raise maxmemory or load less",
    told.BusyLoadingError: "it is still loading its data; wait",
    told.ClusterDownError: "slots are not served (redis-cli CLUSTER INFO)",
}


class LinkLost(StoreUnavailable):
    """The connection broke before the reply came."""


def translated(error: Exception, place: str) -> StoreError:
    """What ``error`` of the server at ``place`` means to a caller."""
    if isinstance(error, StoreError):
        return error
    text = str(error) or type(error).__name__
    remedy = next((r for kind, r in _REMEDIES.items() if isinstance(error, kind)), None)
    if of_one_key := text.startswith("WRONGTYPE"):
        remedy = "another program keeps something else under this key (redis-cli TYPE)"
    if text.startswith("MISCONF"):
        remedy = "it cannot write to its own disk: free space there, and look into its log"
    message = f"{place}: {text}" + (f": {remedy}" if remedy else "")
    if isinstance(error, told.OutOfMemoryError):
        return StoreFull(message)
    refused = told.ResponseError, told.AuthenticationError, told.NoPermissionError
    if isinstance(error, refused) and not isinstance(error, (*NOT_SERVING, told.TryAgainError)):
        refusal = StoreRefused(message)
        refusal.of_one_key = of_one_key
        return refusal
    return StoreUnavailable(message)
