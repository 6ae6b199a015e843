"""What can go wrong at the edge, and the one table from errors to HTTP (RFC 9457 problem details).

ServiceError
├── BadUpload                  the body is no upload: malformed multipart, fields missing or unknown, nothing in it
├── UploadTooLarge             more bytes than the limit
├── WrongRelease               the caller insists on a release that is not the one served
├── Unavailable                try again later; carries the seconds to wait
│   ├── NotReady               no release is loaded
│   ├── QueueFull              as many requests, or tiles, as the limit are waiting
│   ├── NoRoomForUpload        the uploads in memory have reached the limit
│   ├── NoRoomForFiles         a temporary file, in memory or not, could not grow
│   ├── CodecUnavailable       no process can be had for decoding and encoding, or it was lost while it encoded
│   ├── Draining               the service is about to stop
│   └── DeviceBroken           the device cannot be used any more; another instance may do
├── AlreadyHeld                the caller has the very answer that this request would get
├── Unauthenticated            the request does not say whose it is
│   ├── KeyMissing             it carries no key
│   └── KeyUnknown             it carries one that is not known
├── ScopeMissing               the key is not for this
├── QuotaExceeded              the key was used too much; carries the seconds to wait
├── ReleasePinned              the settings let no other release be activated
├── ReleaseRefused             the release to be activated fails its checks
├── UploadTooSlow              the body did not arrive in time
├── DeadlineExceeded           the answer took longer than the limit
└── KeysInvalid                the file of keys cannot be used; stops the start, never reaches a client

The errors of the domain are in `restoration/errors.py`.
"""

import math
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from restoration.errors import (
    DenoiserMissing,
    InvalidOption,
    MetadataTooLarge,
    NoRelease,
    PhotoTooLarge,
    PhotoUndecodable,
    PhotoUnsafe,
    UnsupportedFormat,
    UnsupportedPhoto,
)

PROBLEM_MEDIA_TYPE = "application/problem+json"
REALM = "photo-restoration"


class ServiceError(Exception):
    """The base of the errors that only a service has."""


class BadUpload(ServiceError):
    """The body is no upload."""


class UploadTooLarge(ServiceError):
    """The body has more bytes than the limit."""

    def __init__(self, limit_bytes: int, found_bytes: int | None = None) -> None:
        found = "more" if found_bytes is None else f"{found_bytes:,} bytes"
        super().__init__(f"the body has {found}, but the limit is {limit_bytes:,} bytes; send a smaller file")


class WrongRelease(ServiceError):
    """The caller insists on a release that is not the one served."""

    def __init__(self, asked_for: str, active: str) -> None:
        super().__init__(f"release {asked_for} was asked for, but {active} is active; ask for that, or for none")
        self.active = active


class AlreadyHeld(ServiceError):
    """The caller has the very answer that this request would get."""

    def __init__(self, etag: str) -> None:
        super().__init__(f"the answer would be the one with the tag {etag}, which If-None-Match names; use that one")
        self.etag = etag


class Unavailable(ServiceError):
    """Nothing is wrong with the request: the same one may succeed after `retry_after_seconds`."""

    def __init__(self, message: str, retry_after_seconds: int = 5) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class NotReady(Unavailable):
    """No release is loaded."""


class QueueFull(Unavailable):
    """As many requests, or tiles, as the limit are waiting."""


class NoRoomForUpload(Unavailable):
    """The uploads held in memory have reached the limit."""


class NoRoomForFiles(Unavailable):
    """A temporary file, in memory or not, could not grow."""


class CodecUnavailable(Unavailable):
    """No process can be had for decoding and encoding, or it was lost while it encoded."""


class Draining(Unavailable):
    """The service finishes what it has and then stops."""


class DeviceBroken(Unavailable):
    """The device cannot be used by this process any more."""


class Unauthenticated(ServiceError):
    """The request does not say whose it is. `challenge` is for WWW-Authenticate (RFC 6750)."""

    challenge = f'Bearer realm="{REALM}"'


class KeyMissing(Unauthenticated):
    """The request carries no key."""


class KeyUnknown(Unauthenticated):
    """The request carries a key that is not known."""

    challenge = f'Bearer realm="{REALM}", error="invalid_token"'


class ScopeMissing(ServiceError):
    """The key is not for this."""

    def __init__(self, name: str, scope: str) -> None:
        super().__init__(f"the key {name!r} has not the scope {scope!r}, which this needs; use another")
        self.challenge = f'Bearer realm="{REALM}", error="insufficient_scope", scope="{scope}"'


class QuotaExceeded(ServiceError):
    """The key was used too much: the same request will pass after `retry_after_seconds`."""

    def __init__(self, found: str, wait_seconds: float) -> None:
        self.retry_after_seconds = max(1, math.ceil(wait_seconds))
        super().__init__(f"{found}; try again in {self.retry_after_seconds} seconds")


class ReleasePinned(ServiceError):
    """The settings let no other release be activated."""

    def __init__(self, asked_for: str, pinned: str) -> None:
        super().__init__(
            f"release {asked_for} cannot be activated, because RESTORE_MODEL_VERSION={pinned} pins that one; "
            "start the service with another setting, or with none"
        )


class ReleaseRefused(ServiceError):
    """The release to be activated fails its checks; the one before stays."""

    def __init__(self, version: str, reason: str) -> None:
        super().__init__(f"release {version} cannot be served: {reason}")


class KeysInvalid(ServiceError):
    """The file of keys cannot be read, or is not what it must be."""


class UploadTooSlow(ServiceError):
    """The body did not arrive in time."""


class DeadlineExceeded(ServiceError):
    """The answer took longer than the limit."""


@dataclass(frozen=True)
class ProblemKind:
    """What the problems of one kind share: HTTP status, name (the end of `type`), and title."""

    status: int
    name: str
    title: str

    @property
    def type(self) -> str:
        return f"urn:photo-restoration:problem:{self.name}"


INVALID_PARAMETER = ProblemKind(422, "invalid-parameter", "A parameter is unknown, repeated or out of range")
INTERNAL_ERROR = ProblemKind(500, "internal-error", "The service failed")

PROBLEM_KINDS: dict[type[Exception], ProblemKind] = {
    BadUpload: ProblemKind(400, "bad-upload", "The body is not an upload that can be read"),
    KeyMissing: ProblemKind(401, "key-missing", "A key is needed"),
    KeyUnknown: ProblemKind(401, "key-unknown", "The key is not known"),
    ScopeMissing: ProblemKind(403, "scope-missing", "The key is not for this"),
    NoRelease: ProblemKind(404, "no-release", "There is no such release"),
    UploadTooSlow: ProblemKind(408, "upload-too-slow", "The body did not arrive in time"),
    WrongRelease: ProblemKind(409, "wrong-release", "Another release is active"),
    ReleasePinned: ProblemKind(409, "release-pinned", "The settings pin another release"),
    ReleaseRefused: ProblemKind(409, "release-refused", "The release fails its checks"),
    AlreadyHeld: ProblemKind(412, "already-held", "The answer is the one that the caller has"),
    UploadTooLarge: ProblemKind(413, "upload-too-large", "The body has too many bytes"),
    UnsupportedFormat: ProblemKind(415, "unsupported-format", "The format is not on the list"),
    UnsupportedPhoto: ProblemKind(422, "unsupported-photo", "This kind of photo is not supported"),
    PhotoUndecodable: ProblemKind(422, "photo-undecodable", "The photo cannot be decoded"),
    PhotoTooLarge: ProblemKind(422, "photo-too-large", "The photo has too many pixels"),
    MetadataTooLarge: ProblemKind(422, "metadata-too-large", "The photo carries too much metadata"),
    PhotoUnsafe: ProblemKind(422, "photo-unsafe", "The photo cannot be decoded safely"),
    DenoiserMissing: ProblemKind(422, "denoiser-missing", "The release cannot denoise"),
    InvalidOption: ProblemKind(422, "invalid-option", "An option cannot be had for this photo"),
    RequestValidationError: INVALID_PARAMETER,
    QuotaExceeded: ProblemKind(429, "quota-exceeded", "The key's quota is used up"),
    ClientDisconnect: ProblemKind(499, "client-gone", "The client went away"),
    NotReady: ProblemKind(503, "not-ready", "No release is being served"),
    QueueFull: ProblemKind(503, "queue-full", "Too much is waiting"),
    NoRoomForUpload: ProblemKind(503, "no-room-for-upload", "Too many uploads are in memory"),
    CodecUnavailable: ProblemKind(503, "codec-unavailable", "Photos cannot be decoded or encoded at the moment"),
    Draining: ProblemKind(503, "draining", "The service is stopping"),
    DeviceBroken: ProblemKind(503, "device-broken", "The device has failed"),
    DeadlineExceeded: ProblemKind(504, "deadline-exceeded", "Restoring took too long"),
    NoRoomForFiles: ProblemKind(507, "no-room-for-files", "There is no room for temporary files"),
}


def register_error_handlers(app: FastAPI) -> None:
    """Every error that leaves a route, or finds none, becomes a problem; the unforeseen ones do in `logs.py`."""
    for error_type in PROBLEM_KINDS:
        app.add_exception_handler(error_type, answer_known_error)
    app.add_exception_handler(HTTPException, answer_http_exception)


async def answer_known_error(request: Request, error: Exception) -> JSONResponse:
    kind = next(PROBLEM_KINDS[ancestor] for ancestor in type(error).__mro__ if ancestor in PROBLEM_KINDS)
    return problem_response(request, kind, detail_of(error), headers_of(error), **extra_members_of(error))


async def answer_http_exception(request: Request, error: Exception) -> JSONResponse:
    """The framework's own errors: no such path, method not allowed."""
    assert isinstance(error, HTTPException)
    kind = ProblemKind(error.status_code, error.detail.lower().replace(" ", "-"), error.detail)
    detail = f"{request.method} {request.url.path[:200]}: {error.detail.lower()}; see /openapi.json for what there is"
    return problem_response(request, kind, detail, dict(error.headers or {}))


def answer_unexpected_error(request: Request) -> JSONResponse:
    """The log has the traceback; the client gets the request id to quote, and nothing of the inside."""
    detail = "this is a fault of the service, not of the request; quote the request id when reporting it"
    return problem_response(request, INTERNAL_ERROR, detail)


def problem_response(
    request: Request, kind: ProblemKind, detail: str, headers: dict[str, str] | None = None, **members: Any
) -> JSONResponse:
    request_id = request.scope.get("request_id", "")
    request.scope["problem"] = kind.name
    body = {"type": kind.type, "title": kind.title, "status": kind.status, "detail": detail, "request_id": request_id}
    return JSONResponse(body | members, kind.status, headers, PROBLEM_MEDIA_TYPE)


def detail_of(error: Exception) -> str:
    if isinstance(error, RequestValidationError):
        return "; ".join(f"{parameter}: {message}" for parameter, message in wrong_parameters(error))
    return str(error)


def headers_of(error: Exception) -> dict[str, str]:
    if isinstance(error, Unauthenticated | ScopeMissing):
        return {"WWW-Authenticate": error.challenge}
    if isinstance(error, Unavailable | QuotaExceeded):
        return {"Retry-After": str(error.retry_after_seconds)}
    return {"ETag": error.etag} if isinstance(error, AlreadyHeld) else {}


def extra_members_of(error: Exception) -> dict[str, Any]:
    if isinstance(error, RequestValidationError):
        return {"errors": [{"parameter": name, "message": message} for name, message in wrong_parameters(error)]}
    if isinstance(error, WrongRelease):
        return {"active": error.active}
    return {}


def wrong_parameters(error: RequestValidationError) -> list[tuple[str, str]]:
    """(name, what is wrong with it); the value itself is not repeated: it may be of any length."""
    return [(".".join(map(str, item["loc"][1:]))[:100], item["msg"]) for item in error.errors()]
