"""What the service answers: a restored photo, or a problem."""

import json
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus

import httpx

from archive.errors import (
    DeadlineExceeded,
    NotAllowed,
    PhotoRefused,
    ServiceError,
    ServiceProblem,
    Unavailable,
    WrongRelease,
)

_PROBLEMS: dict[int, type[ServiceProblem]] = {
    401: NotAllowed,
    403: NotAllowed,
    409: WrongRelease,
    413: PhotoRefused,
    415: PhotoRefused,
    422: PhotoRefused,
    429: Unavailable,
    502: Unavailable,  # a proxy whose service is being started again
    503: Unavailable,
    504: DeadlineExceeded,
    507: Unavailable,
}


@dataclass(frozen=True)
class Restored:
    """A photo, restored, and what is known of it.

    content: the encoded photo; damage_ratio: share of the pixels that were written, in [0, 1]; model_version: the
    release that did it; damage_map: a grey PNG, if it was asked for; suspected_from: where nothing was restored, the
    sensitivity from which on something would be, None if none would do. The rest only a service can tell.
    """

    content: bytes
    damage_ratio: float
    model_version: str
    damage_map: bytes | None = None
    suspected_from: float | None = None
    etag: str = ""
    request_id: str = ""
    server_timing: str = ""


def read_restored(answer: httpx.Response) -> Restored:
    """Raises a ServiceProblem if it is one."""
    expect_success(answer)
    parts = {"restored": answer.content}
    if answer.headers.get("Content-Type", "").startswith("multipart/form-data"):
        parts = read_form(answer)
    try:
        return Restored(
            content=parts["restored"],
            damage_ratio=float(answer.headers["X-Damage-Ratio"]),
            model_version=answer.headers["X-Model-Version"],
            damage_map=parts.get("damage_map"),
            suspected_from=float(suspected) if (suspected := answer.headers.get("X-Suspected-From")) else None,
            etag=answer.headers.get("ETag", ""),
            request_id=answer.headers.get("X-Request-ID", ""),
            server_timing=answer.headers.get("Server-Timing", ""),
        )
    except (KeyError, ValueError) as error:
        raise ServiceError(
            f"{answer.url} answered {answer.status_code} without {error}; is this the restoration service?"
        ) from error


def expect_success(answer: httpx.Response) -> None:
    """Raises the ServiceProblem that the answer is, if it is one."""
    if answer.is_success:
        return
    problem = _read_problem(answer)
    error = _PROBLEMS.get(answer.status_code, ServiceProblem)(
        answer.status_code,
        str(problem.get("type") or _name_of(answer.status_code)).rsplit(":", 1)[-1],
        str(problem.get("detail") or f"{answer.url} gave no reason"),
        str(problem.get("request_id", "")),
    )
    if isinstance(error, Unavailable):
        error.retry_after_seconds = _retry_after_seconds(answer)
    raise error


def read_form(answer: httpx.Response) -> dict[str, bytes]:
    """The parts of a multipart/form-data answer by name. The boundary cannot occur within one: it is their hash."""
    boundary = _header_parameter(answer.headers["Content-Type"], "boundary")
    parts: dict[str, bytes] = {}
    for piece in (b"\r\n" + answer.content).split(f"\r\n--{boundary}".encode())[1:-1]:
        head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        disposition = next(line for line in head.decode().split("\r\n") if line.lower().startswith("content-disp"))
        parts[_header_parameter(disposition.partition(":")[2].strip(), "name")] = body
    return parts


def _header_parameter(value: str, name: str) -> str:
    message = Message()
    message["Content-Type"] = value
    return str(message.get_param(name))


def _read_problem(answer: httpx.Response) -> dict[str, object]:
    """What is not the service's own, a proxy's page for one, is no problem document: then there is nothing to read."""
    try:
        problem = json.loads(answer.content)
    except ValueError:
        return {}
    return problem if isinstance(problem, dict) else {}


def _name_of(status: int) -> str:
    try:
        return HTTPStatus(status).phrase.lower().replace(" ", "-")
    except ValueError:
        return f"status-{status}"


def _retry_after_seconds(answer: httpx.Response) -> float | None:
    """None for what is missing or no number: our service gives seconds, a proxy may give a date."""
    try:
        return max(0.0, float(answer.headers["Retry-After"]))
    except (KeyError, ValueError):
        return None
