"""What the API's documentation says of requests and answers beyond what FastAPI finds out by itself."""

from typing import Any

from pydantic import BaseModel

from restoration.photo import MEDIA_TYPES
from service.errors import INTERNAL_ERROR, PROBLEM_KINDS, PROBLEM_MEDIA_TYPE
from service.examples import (
    HEADERS_OF_STATUS,
    PROBLEM_DETAILS,
    PROBLEM_HEADERS,
    REQUEST_HEADERS,
    REQUEST_ID,
    RESTORED_HEADERS,
)
from service.uploads import FORM_FIELDS

ONLY_OF_ACTIVATION = frozenset({"no-release", "release-pinned", "release-refused"})
OF_ACTIVATION = ONLY_OF_ACTIVATION | {
    "key-missing",
    "key-unknown",
    "scope-missing",
    "quota-exceeded",
    "invalid-parameter",
    "not-ready",
}


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


def problem_responses(*statuses: int, of_activation: bool = False) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of every problem with one of these statuses that the call can have."""
    examples = {status: problem_examples(status, of_activation) for status in statuses}
    return {
        status: {
            "description": "; ".join(example["summary"] for example in examples[status].values()),
            "content": {PROBLEM_MEDIA_TYPE: {"schema": Problem.model_json_schema(), "examples": examples[status]}},
            "headers": {name: header_description(*PROBLEM_HEADERS[name]) for name in HEADERS_OF_STATUS.get(status, ())},
        }
        for status in statuses
    }


def problem_examples(status: int, of_activation: bool) -> dict[str, Any]:
    return {
        kind.name: {
            "summary": kind.title,
            "value": Problem(
                type=kind.type,
                title=kind.title,
                status=status,
                detail=PROBLEM_DETAILS[kind.name],
                request_id=REQUEST_ID,
            ).model_dump(),
        }
        for kind in (*PROBLEM_KINDS.values(), INTERNAL_ERROR)
        if kind.status == status and may_have(kind.name, of_activation)
    }


def may_have(problem: str, of_activation: bool) -> bool:
    return problem in OF_ACTIVATION if of_activation else problem not in ONLY_OF_ACTIVATION


def header_description(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


def json_example(value: Any) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {"application/json": {"example": value}}}}


BINARY = {"type": "string", "format": "binary"}
FORM_PROPERTIES = {name: BINARY | {"description": said} for name, said in FORM_FIELDS.items()}
UPLOAD_DESCRIPTION = {
    "required": True,
    "description": "The photo as the field `image`, or as the raw body. `damage` and `protect` are masks: images of "
    "the photo's size, bright where to restore in any case, or where never to touch.",
    "content": {
        "multipart/form-data": {"schema": {"type": "object", "required": ["image"], "properties": FORM_PROPERTIES}},
        **{media_type: {"schema": BINARY} for media_type in MEDIA_TYPES.values()},
    },
}
HEADER_PARAMETERS = [
    {"name": name, "in": "header", "required": False, **header_description(*said)}
    for name, said in REQUEST_HEADERS.items()
]
RESTORED_DESCRIPTION: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The restored photo, or what `output` asked for",
        "headers": {name: header_description(*said) for name, said in RESTORED_HEADERS.items()},
        "content": {media_type: {"schema": BINARY} for media_type in [*MEDIA_TYPES.values(), "multipart/form-data"]},
    }
}
