"""Options of a store beside its URL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

IdKind = Literal["numeric", "mapped"]


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Options with the defaults of a serving process."""

    budget_ms: float = 20.0
    """Time budget of one request: connecting, waiting for a connection, reading and retries. A
    loader's is seconds."""

    write_budget_ms: float = 500.0
    """Timeout of a write's wait for LMDB's write lock, which another process may hold; it is then
    not made. The longer of this and ``budget_ms`` applies."""

    prefix: str = "qin"
    """Prefix of every Redis key."""

    partitions: int = 64
    """Hash-tag partitions of the items in Redis; fixed and recorded when the store is created."""

    history_ttl_s: int = 90 * 86_400
    """Expiry of a Redis history since its last append; LMDB keeps histories."""

    idempotency_ttl_s: int = 86_400
    """Expiry of an append's idempotency key."""

    changes_kept: int = 4096
    """Entries of the item change log, each of up to 512 ids; the oldest are dropped."""

    wait_replicas: int = 0
    """Replicas that must have a click before it is acknowledged (Redis WAIT); 0 waits for none."""

    read_only: bool = False
    """Whether to open an LMDB store for reading alone: a read-only mount, or files of another
    user. Where its lock file cannot be written, no process may write the store meanwhile."""

    ids: IdKind | None = None
    """Ids of a new store: ``numeric`` (the default) or ``mapped``, which are texts; fixed and
    recorded when it is created. None takes a store as it is."""

    @property
    def write_budget_s(self) -> float:
        return max(self.budget_ms, self.write_budget_ms) / 1e3
