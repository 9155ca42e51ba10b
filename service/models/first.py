"""Which version a service begins with."""

from __future__ import annotations

from model_export.errors import BundleError
from service.logs import logger
from service.models.catalogue import Catalogue
from service.models.intake import Rules, TakenIn, recall, take_in
from service.models.private import PrivateFolder


def choose(
    catalogue: Catalogue,
    private: PrivateFolder,
    rules: Rules,
    *,
    pinned: str | None,
    wanted: str | None,
) -> TakenIn:
    """Pinned, else what the fleet serves, else what was active last, else the newest. Blocks.

    BundleError when that one may not come in: a start does not quietly serve something else.
    """
    state = private.remembered()
    if state.loading is not None and state.loading.is_interrupted():
        logger.error(
            "a process ended while it loaded this version; it is not followed again by itself",
            model_version=state.loading.version,
        )
        private.try_to_remember(
            "it may be followed again", loading=None, interrupted=state.loading.version
        )
    if catalogue.single or pinned is not None:
        return _from_folder(pinned or catalogue.newest().version, catalogue, private, rules)
    if wanted is not None and catalogue.folder(wanted) is not None:
        return _from_folder(wanted, catalogue, private, rules)
    for copy in (state.active, state.previous):
        if copy is None:
            continue
        try:
            return recall(copy, private, rules)
        except BundleError as error:
            logger.error("not begun with", model_version=copy.version, reason=str(error))
        if catalogue.folder(copy.version) is not None:
            return _from_folder(copy.version, catalogue, private, rules)
    newest = catalogue.newest().version
    private.try_to_remember("it may be followed after a rollback", followed=newest)
    return _from_folder(newest, catalogue, private, rules)


def _from_folder(
    version: str, catalogue: Catalogue, private: PrivateFolder, rules: Rules
) -> TakenIn:
    folder = catalogue.folder(version)
    if folder is None:
        raise BundleError(f"{catalogue.path / version}: not found; publish it, or pin another")
    return take_in(folder, private, rules)
