"""Registry of loaded model versions, and leases that keep one in memory for a request."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from service.errors import DeadlinePassed, ModelFault, NotReady, ServiceError, UnknownVersion
from service.models.canary import Canary
from service.models.loaded_model import LoadedModel

if TYPE_CHECKING:
    from text.runtime.encoder import TextEncoder  # takes an extra

ACTIVE = "active"  # alias of the version that answers by default
PREVIOUS = "previous"  # alias of the one that did before
ALIASES = (ACTIVE, PREVIOUS)
Role = Literal["active", "canary", "named"]
ROLES: tuple[Role, ...] = ("active", "canary", "named")


class ModelRegistry:
    """Loaded versions by name, alias and role. On the event loop alone."""

    def __init__(self) -> None:
        self.active: LoadedModel | None = None
        self.previous: LoadedModel | None = None  # while it is in memory
        self.canary: Canary | None = None
        # Of all versions that are or were loaded: clients go on sending the features of a version
        # that was rolled back automatically, here or elsewhere in the fleet, and unloaded.
        self.request_features = set[str]()
        self.loading = set[LoadedModel]()  # not ready yet; changed by the loading thread
        self._loaded: dict[str, LoadedModel] = {}
        self._under_way: Counter[LoadedModel] = Counter()
        self._idle: dict[LoadedModel, asyncio.Future[None]] = {}

    def add(self, version: LoadedModel) -> None:
        """Make the version available by its name."""
        self._loaded[version.name] = version
        self.request_features |= version.request_features

    def activate(self, version: LoadedModel) -> None:
        """Switch to ``version``. Requests under way keep the one they took."""
        if version is self.active:
            return
        self.add(version)
        self.active, self.previous = version, self.active
        if self.canary and self.canary.version is version:
            self.canary = None

    def remove(self, version: LoadedModel) -> None:
        """Give it to no new request; those under way keep it (see ``drained``)."""
        assert version is not self.active
        if self._loaded.get(version.name) is version:
            del self._loaded[version.name]
        if self.previous is version:
            self.previous = None
        if self.canary and self.canary.version is version:
            self.canary = None

    async def drained(self, version: LoadedModel) -> None:
        """Wait until the last request that took it has ended; each has a deadline."""
        if self._under_way[version]:
            self._idle[version] = asyncio.get_running_loop().create_future()
            await self._idle[version]
            del self._idle[version]
        self._under_way.pop(version, None)

    def under_way(self, version: LoadedModel) -> int:
        """Number of requests that took it and have not ended."""
        return self._under_way[version]

    def loaded(self) -> list[str]:
        return sorted(self._loaded)

    def all(self) -> list[LoadedModel]:
        return list(self._loaded.values())

    def encoders(self) -> list[TextEncoder]:
        """List the encoders of the loaded versions, the active one's first."""
        ordered = sorted(self.all(), key=lambda version: version is not self.active)
        return [version.encoder for version in ordered if version.encoder is not None]

    def resolve(self, asked: str | None, user_id: int | None = None) -> tuple[LoadedModel, Role]:
        """Choose a version by name, alias or user. UnknownVersion lists those loaded."""
        if self.active is None:
            raise NotReady("the model is still being loaded", headers={"Retry-After": "1"})
        if asked is None:
            if self.canary is not None and user_id is not None and self.canary.takes(user_id):
                return self.canary.version, "canary"
            return self.active, "active"
        found = {ACTIVE: self.active, PREVIOUS: self.previous}.get(asked) or self._loaded.get(asked)
        if found is None:
            raise UnknownVersion(
                f"model_version: {asked!r} is not loaded; loaded: {', '.join(self.loaded())}",
                members={"loaded": self.loaded(), "field": "model_version"},
            )
        return found, "named"

    def lease(self, asked: str | None, user_id: int | None = None) -> Lease:
        """``with registry.lease(…) as version``: keep it in memory, and count the outcome."""
        version, role = self.resolve(asked, user_id)
        return Lease(self, version, role)

    def taken(self, version: LoadedModel) -> None:
        self._under_way[version] += 1

    def given_back(self, version: LoadedModel) -> None:
        self._under_way[version] -= 1
        if not self._under_way[version] and (idle := self._idle.get(version)):
            idle.set_result(None)


class Lease:
    """One request's hold on its version."""

    __slots__ = ("_registry", "role", "version")

    def __init__(self, registry: ModelRegistry, version: LoadedModel, role: Role) -> None:
        self._registry, self.version, self.role = registry, version, role

    def __enter__(self) -> LoadedModel:
        self._registry.taken(self.version)
        return self.version

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._registry.given_back(self.version)
        if error is None or isinstance(error, DeadlinePassed):
            self.version.stats.answered()
        elif isinstance(error, Exception) and is_the_models_fault(error):
            self.version.stats.failed()


def is_the_models_fault(error: Exception) -> bool:
    """Whether ``error`` is neither the caller's nor the store's: unexpected, or a ModelFault."""
    return isinstance(error, ModelFault) or not isinstance(error, ServiceError)
