"""Checks that another version fits into memory."""

from __future__ import annotations

from model_export.bundle.bundle import Bundle
from model_export.bundle.manifest import table_file
from service.errors import Conflict
from service.lifecycle.catalog import ModelCatalog, State
from service.lifecycle.unloader import Unloader
from service.observability.logs import logger
from service.observability.memory import available_bytes

HEADROOM = 1.1  # per expected byte of a version
INDEX_BYTES = 65  # of an item in the table besides its numbers, at most


class MemoryBudget:
    """Unloads the previous version if that makes room; versions with another role stay."""

    def __init__(self, catalog: ModelCatalog, unloader: Unloader) -> None:
        self._catalog, self._unloader = catalog, unloader

    async def make_room(self, bundle: Bundle, more: int = 0) -> None:
        """Make room for a bundle and ``more`` bytes. Conflict if there is none."""
        registry, most = self._catalog.registry, self._catalog.settings.max_loaded_versions
        if len(registry.loaded()) >= most and not await self._unload_previous():
            raise Conflict(
                f"{', '.join(registry.loaded())} are in memory and at most {most} may be "
                "(QIN_MAX_LOADED_VERSIONS): unload one"
            )
        wanted, free = self._expected_bytes(bundle) + int(HEADROOM * more), available_bytes()
        if wanted > free and await self._unload_previous():
            logger.warning("previous version unloaded to free memory", wanted_bytes=wanted)
            free = available_bytes()
        if wanted > free:
            raise Conflict(
                f"about {wanted >> 20:,} MiB are needed and {free >> 20:,} MiB are free: unload a "
                "version, or give the process more memory"
            )

    async def _unload_previous(self) -> bool:
        registry, shadow = self._catalog.registry, self._catalog.shadow
        if registry.previous is None or registry.previous is shadow.version:
            return False
        if registry.canary is not None and registry.previous is registry.canary.version:
            return False
        name = registry.previous.name
        self._unloader.begin(self._catalog.entries[name], State.UNLOADED)
        await self._unloader.ended(name)
        return True

    def _expected_bytes(self, bundle: Bundle) -> int:
        """Add up its files, and a table with as many items as the active one.

        Tables of users are mapped: the page cache holds them once for all workers, so each counts
        its share.
        """
        manifest, workers = bundle.manifest, self._catalog.settings.workers
        mapped = set(map(table_file, manifest.mapped))
        sizes = ((name, record.size) for name, record in manifest.files.items())
        files = sum(size // workers if name in mapped else size for name, size in sizes)
        active, schema = self._catalog.registry.active, bundle.schema
        items = active.table.count if active else 0
        numbers = schema.item_vector_width + schema.network_width + len(schema.context)
        return int(HEADROOM * (files + items * (4 * numbers + INDEX_BYTES)))
