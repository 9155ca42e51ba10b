"""All errors of the service: one tree, each with its HTTP status.

    ServiceError
    ├── NotHttp              400  not HTTP/1.1
    ├── Malformed            400  not JSON
    ├── InvalidHeader        400  a header has an invalid value
    ├── Unauthorised         401  token or API key missing or wrong
    ├── Forbidden            403  wrong port, host or origin
    ├── UnknownModel         404
    ├── UnknownVersion       404
    ├── UnknownItem          404
    ├── UnknownUser          404
    ├── RequestTimeout       408  the request was not received in time
    ├── Conflict             409  conflicts with the current state
    ├── TooLarge             413
    ├── UnsupportedEncoding  415
    ├── UnsupportedMediaType 415  a write without Content-Type application/json
    ├── ClientGone           499  the client closed the connection (nginx's status)
    ├── InvalidField         422  valid JSON with invalid values
    ├── ModelRefused         422  the bundle fails a check
    ├── OverCapacity         429  overload
    ├── HeadersTooLarge      431
    ├── UnsupportedTransferEncoding 501  other than chunked
    ├── NotReady             503
    ├── StoreFailure         503
    ├── NotConfirmed         503  written, but not visible in every process
    ├── DeadlinePassed       504
    ├── ModelFault           500  the model's output is not a probability
    ├── ItemUnreadable       500  the stored record is corrupt
    └── UserUnreadable       500  the stored record is corrupt

Each becomes an RFC 9457 problem document in ``service.api.problems``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

FRAMEWORK = {404: "not-found", 405: "method-not-allowed"}  # problems that are no class here
HTTP_ERROR = "http-error"  # any other of the framework's
MOST_FAULTS = 5  # in an answer; a hostile body may hold a million
MOST_FIELD = 80  # characters of a field's name in an error


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request, and where: ``candidates.3``, ``X-Deadline-Ms``."""

    field: str
    detail: str

    @classmethod
    def at(cls, path: Sequence[str | int], detail: str) -> Fault:
        """Names may come from the caller: they are shortened and made printable."""
        name = ".".join(str(part) for part in path) or "body"
        readable = "".join(c if c.isprintable() else "�" for c in name[:MOST_FIELD])
        return cls(readable if len(name) <= MOST_FIELD else f"{readable}…", detail)


class ServiceError(Exception):
    """Base of the tree. ``detail`` is sent to the caller: nothing internal."""

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
    status, slug, title = 400, "not-http", "Not an HTTP/1.1 request"


class Malformed(ServiceError):
    status, slug, title = 400, "malformed", "The body is not JSON"


class InvalidHeader(ServiceError):
    status, slug, title = 400, "invalid-header", "Invalid header"

    @classmethod
    def of(cls, name: str, detail: str) -> InvalidHeader:
        return cls(f"{name}: {detail}", faults=[Fault(name, detail)])


class Unauthorised(ServiceError):
    status, slug, title = 401, "unauthorised", "Missing or invalid token or key"


class Forbidden(ServiceError):
    status, slug, title = 403, "forbidden", "Forbidden"


class UnknownModel(ServiceError):
    status, slug, title = 404, "unknown-model", "Model not found"


class UnknownVersion(ServiceError):
    status, slug, title = 404, "unknown-version", "Model version not loaded"


class UnknownItem(ServiceError):
    status, slug, title = 404, "unknown-item", "Item not found"


class UnknownUser(ServiceError):
    status, slug, title = 404, "unknown-user", "User not found"


class RequestTimeout(ServiceError):
    status, slug, title = 408, "request-timeout", "Request timeout"


class Conflict(ServiceError):
    status, slug, title = 409, "conflict", "Conflicts with the current state"


class TooLarge(ServiceError):
    status, slug, title = 413, "too-large", "Body too large"

    @classmethod
    def beyond(cls, limit: int) -> TooLarge:
        """The rest of the body is not read, so the connection must close."""
        return cls(
            f"the body is larger than {limit} bytes",
            headers={"Connection": "close"},
            members={"limit_bytes": limit},
        )


class UnsupportedEncoding(ServiceError):
    status, slug, title = 415, "unsupported-encoding", "Unsupported Content-Encoding"


class UnsupportedMediaType(ServiceError):
    status, slug, title = 415, "unsupported-media-type", "Content-Type must be application/json"


class ClientGone(ServiceError):
    status, slug, title = 499, "client-gone", "Client closed the connection"


class InvalidField(ServiceError):
    status, slug, title = 422, "invalid-field", "Invalid request"

    @classmethod
    def of(cls, *path: str | int, detail: str) -> InvalidField:
        fault = Fault.at(path, detail)
        return cls(f"{fault.field}: {detail}", faults=[fault])


class ModelRefused(ServiceError):
    status, slug, title = 422, "model-refused", "Model version refused"


class OverCapacity(ServiceError):
    status, slug, title = 429, "over-capacity", "Too many requests"


class HeadersTooLarge(ServiceError):
    status, slug, title = 431, "headers-too-large", "Request headers too large"


class UnsupportedTransferEncoding(ServiceError):
    status, slug = 501, "unsupported-transfer-encoding"
    title = "Unsupported Transfer-Encoding"


class NotReady(ServiceError):
    status, slug, title = 503, "not-ready", "Not ready"


class StoreFailure(ServiceError):
    status, slug, title = 503, "store-unavailable", "Feature store unavailable"


class NotConfirmed(ServiceError):
    status, slug, title = 503, "not-confirmed", "Written, but not visible in every process yet"


class DeadlinePassed(ServiceError):
    status, slug, title = 504, "deadline-passed", "Deadline exceeded"


class ModelFault(ServiceError):
    status, slug, title = 500, "model-fault", "Model failure"


class ItemUnreadable(ServiceError):
    status, slug, title = 500, "unreadable-item", "Stored item is corrupt"


class UserUnreadable(ServiceError):
    status, slug, title = 500, "unreadable-user", "Stored user is corrupt"


def tree(base: type[ServiceError] = ServiceError) -> list[type[ServiceError]]:
    """Every class of the tree, the base first."""
    return [base, *(found for child in base.__subclasses__() for found in tree(child))]
