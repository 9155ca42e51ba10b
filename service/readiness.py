"""Whether the service may be sent traffic, and what it still waits for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Readiness:
    """Ready means loaded, verified against the bundle's golden answers, filled and warmed."""

    step: str = "starting"
    done: int = 0  # items, while the table is being filled
    total: int = 0
    ready: bool = False
    draining: bool = False  # told to stop; still answering, so that balancers notice first

    @property
    def waiting_for(self) -> str:
        return f"{self.step}: {self.done:,} of {self.total:,}" if self.total else self.step

    def enter(self, step: str, total: int = 0) -> None:
        self.step, self.done, self.total = step, 0, total
