"""What a store may be told beside its URL."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Defaults are those of a serving process."""

    budget_ms: float = 20.0
    """What one request may spend on the store: connecting, waiting for a connection, reading and
    trying again all come out of it. A loader takes seconds instead."""

    write_budget_ms: float = 500.0
    """How long a write waits for its turn in LMDB, whose write lock another process may hold. One
    that has waited so long is given up and not made; ``budget_ms`` counts where it is longer."""

    prefix: str = "qin"
    """What every Redis key begins with."""

    partitions: int = 64
    """Hash-tag partitions of the items in Redis; decided when the store is made, then recorded."""

    history_ttl_s: int = 90 * 86_400
    """A Redis history that nobody appends to is forgotten after this; LMDB keeps it."""

    idempotency_ttl_s: int = 86_400
    """How long an append's idempotency key is remembered."""

    changes_kept: int = 4096
    """Entries of the item change log, each of up to 512 ids; the oldest are dropped."""

    wait_replicas: int = 0
    """Replicas that must have a click before it is acknowledged (Redis WAIT); 0 waits for none."""

    @property
    def write_budget_s(self) -> float:
        return max(self.budget_ms, self.write_budget_ms) / 1e3
