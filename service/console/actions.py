"""Commands of the page Versions: which there are for a version, and what each will do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from service.errors import InvalidField, UnknownVersion
from service.lifecycle.catalog import IN_MEMORY, UNDER_WAY, ModelEntry, State
from service.lifecycle.manager import ModelManager

Verb = Callable[[], Awaitable[ModelEntry]]
TITLES = {
    "load": "Load",
    "activate": "Activate",
    "canary": "Canary",
    "shadow": "Shadow",
    "promote": "Promote",
    "rollback": "Roll back",
    "unload": "Unload",
}
SHARED = ("canary", "shadow")  # with a share
DEFAULT_SHARE = 0.05


class Consequence(NamedTuple):
    """What a confirmation says."""

    action: str
    title: str
    text: str  # what will happen
    share: float | None  # to begin the slider with; None: none is asked for
    is_grave: bool  # it changes what clients are answered


def possible(entry: ModelEntry, roles: Mapping[str, Any]) -> list[str]:
    """List the actions that make sense for a version now, the likeliest first."""
    canary, shadow = (roles[name] and roles[name]["version"] for name in SHARED)
    if entry.state in UNDER_WAY or entry.state is State.DRAINING:
        return []
    if entry.state is State.ACTIVE:
        return ["rollback"] if roles["previous"] else []
    if entry.state is State.READY:
        promoted = entry.name == (canary or shadow)
        first = ["promote"] if promoted else ["activate"]
        return [*first, "canary", "shadow", "unload"]
    if entry.state is State.FAILED:
        return ["load", "unload"]
    return ["load", "activate", "canary", "shadow"]


def consequence(
    action: str, entry: ModelEntry, roles: Mapping[str, Any], window_s: float, under_way: int
) -> Consequence:
    """Describe what an action will do. UnknownVersion for an action that there is not."""
    if action not in TITLES:
        raise UnknownVersion(f"no action {action!r}; there are {', '.join(TITLES)}")
    name, active = entry.name, roles["active"]
    loaded = "" if entry.state in IN_MEMORY else f"{name} is loaded and verified first. "
    judged = (
        f" If its answers fail or slow down within {window_s:g} s, it is rolled back automatically."
        if window_s
        else ""
    )
    takes_over = (
        f"Every request that names no version is answered by {name}, in place of {active}. "
        f"{active} stays in memory for a rollback.{judged}"
    )
    texts = {
        "load": f"The files of {name} are copied, checked, tried in a sandbox and read into "
        "memory. It answers no request until it is given traffic.",
        "activate": loaded + takes_over,
        "canary": f"{loaded}{name} answers this share of the users, always the same ones; all "
        f"others are answered by {active}. 0% ends the canary.",
        "shadow": f"{loaded}Copies of this share of the requests are scored by {name} too and "
        "compared. No client sees its scores. 0% ends the shadow.",
        "promote": takes_over,
        "rollback": "Every request that names no version is answered by "
        f"{roles['previous']} again, in place of {name}.",
        "unload": f"{name} is removed from memory after its last answer"
        + (f" ({under_way} under way)." if under_way else ".")
        + " Requests that name it are refused from now on.",
    }
    share = None
    if action in SHARED:
        has = roles[action]
        share = has["share"] if has and has["version"] == name else DEFAULT_SHARE
    grave = action not in ("load", "shadow", "unload")
    return Consequence(action, TITLES[action], texts[action], share, grave)


def verb(manager: ModelManager, action: str, version: str, form: Mapping[str, str]) -> Verb:
    """Make the call of an action. InvalidField: of its form."""
    if action in SHARED:
        share = share_of(form.get("share", ""))
        begin = manager.canary if action == "canary" else manager.set_shadow
        return lambda: begin(version, share)
    if action == "promote":
        return manager.promote
    if action == "rollback":
        return lambda: manager.rollback()
    named: dict[str, Callable[[str], Awaitable[ModelEntry]]] = {
        "load": manager.load,
        "activate": manager.activate,
        "unload": manager.unload,
    }
    if action not in named:
        raise UnknownVersion(f"no action {action!r}; there are {', '.join(TITLES)}")
    return lambda: named[action](version)


def share_of(percent: str) -> float:
    """Read a share from a form's per cent. InvalidField."""
    try:
        share = float(percent) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InvalidField("share: should be a number from 0 to 100")
    return share
