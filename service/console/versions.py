"""The page Versions: every version with its quality and roles, and commands with confirmations."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.api.admin_commands import AdminCommands
from service.console.actions import SHARED, TITLES, consequence, possible, share_of, verb
from service.console.forms import read_form
from service.console.guard import Guard, Visitor
from service.console.manifests import Manifests
from service.console.pages import HEADERS, Pages
from service.console.shadow_picture import picture
from service.errors import ServiceError, UnknownVersion
from service.lifecycle.catalog import IN_MEMORY, UNDER_WAY, ModelEntry, State
from service.observability.background import begin
from service.state import ServiceState

ROOT = "/console/versions"
A_PAGE = 50  # versions that are in the folder alone
SOON_S = 1.0  # a command that takes longer goes on while its progress is shown
SHOWN_ACTIONS = 20
BROUGHT = frozenset(  # actions that bring a version into memory, or give it a role
    {
        *("load", "activate", "canary", "shadow", "promote", "rollback"),
        *("start", "follow", "fleet", "automatic rollback"),
    }
)
NEAR = {state.value for state in (*IN_MEMORY, *UNDER_WAY, State.FAILED)}


class VersionPages:
    """Shows versions and runs the commands of their pages."""

    def __init__(self, state: ServiceState, pages: Pages, guard: Guard) -> None:
        self._state, self._pages, self._guard = state, pages, guard
        self._commands, self._manifests = AdminCommands(state), Manifests()

    async def every(self, request: Request, visitor: Visitor) -> Response:
        """Show those in memory, and a page of the others."""
        catalog, wanted = self._state.manager.catalog, request.query_params.get("q", "").strip()
        listed = [v for v in await catalog.listing() if wanted.lower() in v["version"].lower()]
        near = [one for one in listed if one["state"] in NEAR or one["roles"]]
        far = [one for one in listed if one not in near]
        pages = max(1, -(-len(far) // A_PAGE))
        page = min(_whole(request.query_params.get("page")), pages)
        shown = far[A_PAGE * (page - 1) : A_PAGE * page]
        await self._complete([*near, *shown])
        trail = await asyncio.to_thread(self._state.trail.latest)
        for one in near:
            one["by"] = next(
                (e for e in trail if e.get("model_version") == one["version"] and _brought(e)), None
            )
        return self._pages.page(
            "versions",
            visitor,
            near=near,
            far=shown,
            count=len(listed),
            page=page,
            pages=pages,
            wanted=wanted,
            roles=catalog.roles(),
            trail=trail[:SHOWN_ACTIONS],
        )

    async def one(self, request: Request, visitor: Visitor) -> Response:
        """Show one version, and what can be done with it."""
        catalog = self._state.manager.catalog
        entry = await self._known(request)
        shown, roles = catalog.describe(entry), catalog.roles()
        await self._complete([shown])
        trail = await asyncio.to_thread(self._state.trail.latest, entry.name)
        drawn = None
        if "shadow" in shown["roles"]:
            drawn = picture(self._state.manager.shadow, self._state.registry.active)
        return self._pages.page(
            "version",
            visitor,
            one=shown,
            roles=roles,
            actions=possible(entry, roles),
            titles=TITLES,
            trail=trail[:SHOWN_ACTIONS],
            picture=drawn,
        )

    async def confirm(self, request: Request, visitor: Visitor) -> Response:
        """Say what a command will do, before it is given."""
        state, entry = self._state, await self._known(request)
        catalog = state.manager.catalog
        under_way = state.registry.under_way(entry.version) if entry.version else 0
        said = consequence(
            request.path_params["action"],
            entry,
            catalog.roles(),
            state.settings.rollback_window_s,
            under_way,
        )
        return self._pages.page("confirm", visitor, said=said, version=entry.name)

    async def act(self, request: Request) -> Response:
        """Run a confirmed command; one that takes long goes on in the background."""
        visitor, form = self._guard.visitor(request), await read_form(request)
        self._guard.check_command(visitor, form.get("csrf", ""))
        version, action = request.path_params["version"], request.path_params["action"]
        command = verb(self._state.manager, action, version, form)
        share = {"share": share_of(form.get("share", ""))} if action in SHARED else {}
        running = self._commands.perform(
            request, lambda: visitor.name, action, version, command, **share
        )
        task = begin("console", running, expected=(ServiceError,))
        await asyncio.wait({task}, timeout=SOON_S)
        return RedirectResponse(f"{ROOT}/{quote(version)}?after={action}", 303, HEADERS)

    async def _known(self, request: Request) -> ModelEntry:
        """The version that an address names. UnknownVersion, without the hundreds there are."""
        name = request.path_params["version"]
        try:
            return await self._state.manager.catalog.known(name)
        except UnknownVersion:
            raise UnknownVersion(f"there is no version {name!r} in the models folder") from None

    async def _complete(self, shown: list[dict[str, Any]]) -> None:
        """Add what the manifests say, and the shares of the roles."""
        catalog = self._state.manager.catalog
        found = await asyncio.to_thread(catalog.repository.versions)
        self._manifests.keep_only(found)
        wanted = [found[one["version"]] for one in shown if one["version"] in found]
        facts = await asyncio.to_thread(self._manifests.read, wanted)
        roles = catalog.roles()
        for one in shown:
            one["facts"] = facts.get(one["version"])
            one["parts"] = list(_parts(one["roles"], roles))


def _parts(names: Iterable[str], roles: dict[str, Any]) -> Iterable[str]:
    for name in names:
        part = roles.get(name)
        yield f"{name} {part['share']:.0%}" if isinstance(part, dict) else name


def _brought(entry: dict[str, Any]) -> bool:
    return entry.get("action") in BROUGHT and entry.get("outcome") == "done"


def _whole(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and 0 < len(text) < 6 else 1
