"""Chooses the version that a service starts with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from feature_store.schema import FeatureSchema
from model_export.bundle.errors import BundleError
from service.artifacts.arrival import FoundBundle
from service.artifacts.importer import ImportedBundle, ImportPolicy, import_bundle, reopen_copy
from service.artifacts.local_copies import LocalCopies
from service.artifacts.persisted_state import Copy
from service.artifacts.repository import ModelRepository, age
from service.observability.logs import logger

Source = tuple[str, Callable[[], ImportedBundle]]  # a version, and a function that imports it


@dataclass
class StartupVersions:
    """Offers the versions that a service may start with, best first.

    A pinned or single version is the only one. Otherwise: the fleet's version, the one that was
    active last, its predecessor, then the newest. Versions that cannot be used are passed over,
    which the log, the list of versions and /readyz report.
    """

    repository: ModelRepository
    copies: LocalCopies
    policy: ImportPolicy
    pinned: str | None = None
    wanted: str | None = None  # what the fleet serves
    passed_over: dict[str, str] = field(default_factory=dict)  # version -> reason
    refused: dict[str, str] = field(default_factory=dict)  # version -> mark of its folder

    def __post_init__(self) -> None:
        self._sources = self._in_order()
        self._newest: dict[str, FoundBundle] = {}  # as they were when chosen

    @property
    def is_chosen(self) -> bool:
        """Whether the version was named, so that there is no other."""
        return self.repository.single or self.pinned is not None

    def next(self) -> ImportedBundle:
        """Import the next usable version. Blocks. BundleError if none is left."""
        for version, take in self._sources:
            try:
                return take()
            except BundleError as error:
                if self.is_chosen:
                    raise
                self.pass_over(version, str(error))
        raise BundleError(self._nothing())

    def pass_over(self, version: str, reason: str, *, for_good: bool = True) -> None:
        """Record that a version cannot be used, and why.

        ``for_good``: until its folder changes; else it may be followed later.
        """
        self.passed_over.setdefault(version, reason)
        if for_good and version in self._newest:
            self.refused[version] = self._newest[version].mark
        logger.error("passed over at start", model_version=version, reason=reason)

    def hold_to(self, schema: FeatureSchema) -> None:
        """Import only bundles for this store's schema from now on."""
        self.policy = replace(self.policy, store_schema=schema)

    def begun_with(self, imported: ImportedBundle) -> None:
        """Record the version that was started with: only newer ones are followed."""
        found = self._newest.get(imported.copy.version)
        if found is not None:
            self.copies.state.try_update(
                "this version may be followed again after a rollback",
                followed=found.version,
                followed_created=found.created,
            )

    def _in_order(self) -> Iterator[Source]:
        state, repository = self.copies.state.read(), self.repository
        if state.loading is not None and state.loading.is_interrupted():
            logger.error(
                "a process was killed while loading this version; it is not followed again",
                model_version=state.loading.version,
            )
            state = self.copies.state.try_update(
                "this version may be followed again",
                loading=None,
                interrupted=state.loading.version,
            )
        if self.is_chosen:
            version = self.pinned or next(iter(repository.versions()), repository.path.name)
            yield version, partial(self._from_folder, version)
            return
        if self.wanted is not None and repository.folder(self.wanted) is not None:
            yield self.wanted, partial(self._from_folder, self.wanted)
        for copy in (state.active, state.previous):
            if copy is not None:
                yield copy.version, partial(self._reopen, copy)
        self._newest = {found.version: found for found in repository.newest_first()}
        last = self._newest.get(state.interrupted or "")
        for found in sorted(repository.versions().values(), key=_unknown_first, reverse=True):
            if found.version in self.passed_over or found.version == (last and last.version):
                continue
            if found.version in self._newest:
                yield found.version, partial(self._from_folder, found.version)
            else:
                self.pass_over(found.version, found.fault or found.arriving or found.ahead or "")
        if last is not None:  # the last resort: its load has killed a process
            yield last.version, partial(self._from_folder, last.version)

    def _reopen(self, copy: Copy) -> ImportedBundle:
        """Open the local copy, or import from the models folder if it is damaged."""
        try:
            return reopen_copy(copy, self.copies, self.policy)
        except BundleError as error:
            if self.repository.folder(copy.version) is None:
                raise
            logger.error("local copy not used", model_version=copy.version, reason=str(error))
            return self._from_folder(copy.version)

    def _from_folder(self, version: str) -> ImportedBundle:
        folder = self.repository.folder(version)
        if folder is None:
            raise BundleError(
                f"{self.repository.path / version}: not found; publish it, or pin another"
            )
        return import_bundle(folder, self.copies, self.policy)

    def _nothing(self) -> str:
        if not self.passed_over:
            return self.repository.nothing()
        first, *others = self.passed_over.values()
        also = f" (and {len(others)} more: see the log)" if others else ""
        return f"{first}{also}"


def _unknown_first(found: FoundBundle) -> tuple[bool, float, str]:
    """Sort key of versions: as ``age``, but unknown dates last: they may be newer."""
    return found.created is None, *age(found)
