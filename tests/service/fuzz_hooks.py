"""What schemathesis cannot know from an OpenAPI document. Loaded by it, in its own process."""

from __future__ import annotations

import re
from typing import Any

import schemathesis
from schemathesis import Case, HookContext, Response
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import RejectedPositiveData

from feature_store.contract import MAX_ID
from service.api.oip.message import LENGTH_HEADER

OF_TENSORS = re.compile(
    r'"inputs\..*: (Field required|given more than once|data or binary_data_size'
    r"|data and binary_data_size|[0-9]+ values for shape|[0-9]+ (to [0-9]+ )?of them"
    r"|([0-9]+ to )?[0-9]+ bytes, for shape|binary_data_size is|there is no shared memory"
    r"|Input should be 0 or more)"
    # Where ids are texts, the tensor's name decides the type of its values.
    r'|"inputs\.[^"]*\.(datatype: (BYTES: the ids|INT64")|data\.[0-9]+: )'
    r'|"outputs\.|"parameters\.|"context'
)
# Names of inline candidates, and numbers that make scores overflow.
OF_INLINE = re.compile(r"candidates\.[0-9]+(\.name)?")
FROM_THE_MODEL = ("context", "features", "history")  # limits depend on the version that answers


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """To JSON Schema 7.0 is the integer 7; the service refuses it, as docs/http-api.md says."""
    case.body = _integers(case.body)


@schemathesis.hook
def filter_failure(context: HookContext, failure: Failure, case: Case, response: Response) -> bool:
    """False: no fault of the service's.

    A caller who gives an answer a millisecond gets the 504 that was asked for. JSON Schema cannot
    say that a list has as many values as another one has or its shape says, which tensors there
    must be, or that a header has the number of a body's bytes. And schemathesis compares integers
    with a limit near 2**63 as floating-point numbers.
    """
    problem = response.json() if "problem+json" in response.headers["content-type"][0] else {}
    if response.status_code == 504:
        return "X-Deadline-Ms" not in (case.headers or {})
    if response.status_code == 422:
        field = str(problem.get("field"))
        of_model = field.startswith(FROM_THE_MODEL) or OF_INLINE.fullmatch(field)
        return not (case.path == "/v1/score" and of_model) and not _beyond(case.body)
    if response.status_code != 400 or not case.path.endswith("/infer"):
        return True
    given = {name.lower() for name in case.headers or {}}
    unsaid = LENGTH_HEADER.lower() in given or OF_TENSORS.search(response.text)
    return not (unsaid and isinstance(failure, RejectedPositiveData))


def _integers(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_integers(one) for one in value]
        case dict():
            return {name: _integers(one) for name, one in value.items()}
    return value


def _beyond(value: Any) -> bool:
    """Does it hold an id that is too large by less than a float's precision?"""
    match value:
        case int():
            return value > MAX_ID and float(value) <= float(MAX_ID)
        case list():
            return any(_beyond(one) for one in value)
        case dict():
            return any(_beyond(one) for one in value.values())
    return False
