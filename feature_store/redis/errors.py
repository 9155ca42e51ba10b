"""Translates Redis errors to StoreErrors."""

from __future__ import annotations

from redis import exceptions

from feature_store.errors import StoreError, StoreFull, StoreRefused, StoreUnavailable

# Replies of a server that cannot serve any request: the breaker counts them as failures.
NOT_SERVING = (exceptions.BusyLoadingError, exceptions.ClusterDownError)
# Errors that arrive as a reply, so that the connection is still in sync.
REPLIES = (exceptions.ResponseError, exceptions.BusyLoadingError, exceptions.AuthenticationError)

_REMEDIES = {
    exceptions.AuthenticationError: "correct the password in the store's URL",
    exceptions.NoPermissionError: "the user lacks a permission (redis-cli ACL LIST)",
    exceptions.ReadOnlyError: "it is a replica: give the master's address, or use redis+sentinel://",
    exceptions.OutOfMemoryError: "raise maxmemory or load less",
    exceptions.BusyLoadingError: "it is still loading its data; wait",
    exceptions.ClusterDownError: "slots are not served (redis-cli CLUSTER INFO)",
}


class ConnectionLost(StoreUnavailable):
    """The connection broke before the reply came."""


def translate(error: Exception, place: str) -> StoreError:
    """Return the StoreError for ``error`` of the server at ``place``."""
    if isinstance(error, StoreError):
        return error
    text = str(error) or type(error).__name__
    remedy = next((r for kind, r in _REMEDIES.items() if isinstance(error, kind)), None)
    if of_one_key := text.startswith("WRONGTYPE"):
        remedy = "the key holds another type, of another program (redis-cli TYPE)"
    if text.startswith("MISCONF"):
        remedy = "it cannot write to its disk: free space there and see its log"
    message = f"{place}: {text}" + (f": {remedy}" if remedy else "")
    if isinstance(error, exceptions.OutOfMemoryError):
        return StoreFull(message)
    refused = exceptions.ResponseError, exceptions.AuthenticationError, exceptions.NoPermissionError
    if isinstance(error, refused) and not isinstance(
        error, (*NOT_SERVING, exceptions.TryAgainError)
    ):
        refusal = StoreRefused(message)
        refusal.of_one_key = of_one_key
        return refusal
    return StoreUnavailable(message)
