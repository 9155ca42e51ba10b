"""Which version a path of the protocol names."""

from __future__ import annotations

from starlette.requests import Request

from service.errors import UnknownModel, UnknownVersion
from service.state import ServiceState

LONGEST_VERSION = 64


def asked_version(state: ServiceState, request: Request) -> str | None:
    """The version in the path, which may be an alias. UnknownModel, UnknownVersion."""
    model, version = request.path_params["model"], request.path_params.get("version")
    if model != state.settings.model_name:
        raise UnknownModel(f"the only model is {state.settings.model_name!r}")
    if version is not None and len(version) > LONGEST_VERSION:
        raise UnknownVersion(f"no version has a name of {len(version)} letters")
    return version
