"""Everything the service refuses or fails with: one tree, each with its status.

    ServiceError
    ├── NotHttp              400  not HTTP/1.1 either
    ├── Malformed            400  not JSON
    ├── InvalidHeader        400  a header that says what it cannot
    ├── Unauthorised         401  no token or API key, or a wrong one
    ├── Forbidden            403  not at this port, or a browser's request for another site
    ├── UnknownModel         404
    ├── UnknownVersion       404
    ├── UnknownItem          404
    ├── RequestTimeout       408  it did not arrive in time
    ├── Conflict             409  not in this state of affairs
    ├── TooLarge             413
    ├── UnsupportedEncoding  415
    ├── UnsupportedMediaType 415  a write that is not said to be JSON
    ├── ClientGone           499  nobody is left to answer (nginx's number for it)
    ├── InvalidField         422  JSON, but not what was asked for
    ├── ModelRefused         422  a version that may not come in
    ├── OverCapacity         429  more than can be answered in time
    ├── HeadersTooLarge      431
    ├── UnsupportedTransferEncoding 501  not chunked
    ├── NotReady             503
    ├── StoreFailure         503
    ├── NotConfirmed         503  written, but not in every answer yet
    ├── DeadlinePassed       504
    ├── ModelFault           500  the model answered with something that is no probability
    └── ItemUnreadable       500  the store's record of it is damaged

Each becomes an RFC 9457 problem document in ``service.api.problems``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

MOST_FIELD = 80  # characters of a field's name that are repeated


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request, and where: ``candidates.3``, ``X-Deadline-Ms``."""

    field: str
    detail: str

    @classmethod
    def at(cls, path: Sequence[str | int], detail: str) -> Fault:
        """Names may be the caller's own, so they are kept short and printable."""
        name = ".".join(str(part) for part in path) or "body"
        readable = "".join(c if c.isprintable() else "�" for c in name[:MOST_FIELD])
        return cls(readable if len(name) <= MOST_FIELD else f"{readable}…", detail)


class ServiceError(Exception):
    """Base of the tree. ``detail`` is for the caller and holds nothing internal."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail, self.faults = detail, tuple(faults)
        self.headers, self.members = dict(headers or {}), dict(members or {})


class NotHttp(ServiceError):
    status, slug, title = 400, "not-http", "This is not HTTP/1.1"


class Malformed(ServiceError):
    status, slug, title = 400, "malformed", "The body is not JSON"


class InvalidHeader(ServiceError):
    status, slug, title = 400, "invalid-header", "A header is not valid"

    @classmethod
    def of(cls, name: str, detail: str) -> InvalidHeader:
        return cls(f"{name}: {detail}", faults=[Fault(name, detail)])


class Unauthorised(ServiceError):
    status, slug, title = 401, "unauthorised", "A token or key is missing or wrong"


class Forbidden(ServiceError):
    status, slug, title = 403, "forbidden", "Forbidden"


class UnknownModel(ServiceError):
    status, slug, title = 404, "unknown-model", "There is no such model"


class UnknownVersion(ServiceError):
    status, slug, title = 404, "unknown-version", "This model version is not loaded"


class UnknownItem(ServiceError):
    status, slug, title = 404, "unknown-item", "The store has no such item"


class RequestTimeout(ServiceError):
    status, slug, title = 408, "request-timeout", "The request took too long to arrive"


class Conflict(ServiceError):
    status, slug, title = 409, "conflict", "Not as things are now"


class TooLarge(ServiceError):
    status, slug, title = 413, "too-large", "The body is too large"

    @classmethod
    def beyond(cls, limit: int) -> TooLarge:
        """What is left of the body is not read, so the connection cannot be used again."""
        return cls(
            f"the body is larger than {limit} bytes",
            headers={"Connection": "close"},
            members={"limit_bytes": limit},
        )


class UnsupportedEncoding(ServiceError):
    status, slug, title = 415, "unsupported-encoding", "Content-Encoding is not understood"


class UnsupportedMediaType(ServiceError):
    status, slug, title = 415, "unsupported-media-type", "Content-Type is not application/json"


class ClientGone(ServiceError):
    status, slug, title = 499, "client-gone", "The client went away"


class InvalidField(ServiceError):
    status, slug, title = 422, "invalid-field", "The request is not valid"

    @classmethod
    def of(cls, *path: str | int, detail: str) -> InvalidField:
        fault = Fault.at(path, detail)
        return cls(f"{fault.field}: {detail}", faults=[fault])


class ModelRefused(ServiceError):
    status, slug, title = 422, "model-refused", "The version is refused"


class OverCapacity(ServiceError):
    status, slug, title = 429, "over-capacity", "More than can be answered in time"


class HeadersTooLarge(ServiceError):
    status, slug, title = 431, "headers-too-large", "The headers are too large"


class UnsupportedTransferEncoding(ServiceError):
    status, slug = 501, "unsupported-transfer-encoding"
    title = "Transfer-Encoding is not understood"


class NotReady(ServiceError):
    status, slug, title = 503, "not-ready", "Not ready yet"


class StoreFailure(ServiceError):
    status, slug, title = 503, "store-unavailable", "The feature store does not answer"


class NotConfirmed(ServiceError):
    status, slug, title = 503, "not-confirmed", "Written, but not in every answer yet"


class DeadlinePassed(ServiceError):
    status, slug, title = 504, "deadline-passed", "The deadline passed"


class ModelFault(ServiceError):
    status, slug, title = 500, "model-fault", "The model failed"


class ItemUnreadable(ServiceError):
    status, slug, title = 500, "unreadable-item", "The stored item is damaged"


def tree(base: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    """Every class of the tree, the base first."""
    return [base, *(found for child in base.__subclasses__() for found in tree(child))]
