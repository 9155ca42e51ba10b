"""Checks that another version fits into memory, and its table into the folder of tables."""

from __future__ import annotations

import asyncio
from shutil import disk_usage

from model_export.bundle.bundle import Bundle
from model_export.bundle.manifest import table_file
from service.errors import Conflict
from service.items.shared_file import table_path
from service.items.table_layout import size_of
from service.lifecycle.catalog import ModelCatalog, State
from service.lifecycle.load_steps import FEW
from service.lifecycle.unloader import Unloader
from service.observability.logs import logger
from service.observability.memory import available_bytes

HEADROOM = 1.1  # per expected byte of a version
INDEX_BYTES = 65  # of an item in the table besides its numbers, at most
CHILD_BYTES = 128 << 20  # of the process that fills the table, without what it maps


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
        table = await asyncio.to_thread(self._table_bytes, bundle)
        wanted = self._expected_bytes(bundle, table) + int(HEADROOM * more)
        while short := self._short_of(wanted, table):
            if not await self._unload_previous():
                raise Conflict(short)
            logger.warning("previous version unloaded to free memory", wanted_bytes=wanted)

    def _short_of(self, wanted: int, table: int) -> str | None:
        """Return what there is too little of, with the remedy; None if there is enough."""
        if wanted > (free := available_bytes()):
            return (
                f"about {wanted >> 20:,} MiB are needed and {free >> 20:,} MiB are free: unload a "
                "version, or give the process more memory"
            )
        folder = self._catalog.settings.table_folder
        if folder is not None and table > (free := disk_usage(folder).free):
            return (
                f"{folder}: about {table >> 20:,} MiB are needed for its item table and "
                f"{free >> 20:,} MiB are free: unload a version, make room there, or lower "
                "QIN_MAX_TABLE_ITEMS"
            )
        return None

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

    def _expected_bytes(self, bundle: Bundle, table: int) -> int:
        """Add up its files, its table, and the process that fills it.

        Tables of users are mapped: the page cache holds them once for all workers, so each counts
        its share.
        """
        manifest, workers = bundle.manifest, self._catalog.settings.workers
        mapped = set(map(table_file, manifest.mapped))
        sizes = ((name, record.size) for name, record in manifest.files.items())
        files = sum(size // workers if name in mapped else size for name, size in sizes)
        active = self._catalog.registry.active
        child = CHILD_BYTES if table and active and active.table.count > FEW else 0
        return int(HEADROOM * (files + table)) + child

    def _table_bytes(self, bundle: Bundle) -> int:
        """Size of a table with as many items as the active one; 0 of one that another process has
        made. A shared one takes all of its room at once, others what is written. Blocks."""
        active, settings = self._catalog.registry.active, self._catalog.settings
        schema = bundle.schema
        if active is None:
            return 0
        if settings.table_folder is not None:
            made = table_path(settings.table_folder, bundle, settings.store).exists()
            return 0 if made else size_of(schema, active.table.capacity)
        numbers = schema.item_vector_width + schema.network_width + len(schema.context)
        return active.table.count * (4 * numbers + INDEX_BYTES)
