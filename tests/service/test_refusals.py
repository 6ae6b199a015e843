"""Bad inputs: each gets its exact status and problem type, and none is a 500."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from fastapi.testclient import TestClient

from service.errors import INTERNAL_ERROR, PROBLEM_KINDS

from .serving import MakeClient, assert_problem, context_of, encode, grey_photo

PHOTO = encode(grey_photo())


def png_that_promises(width_px: int, height_px: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width_px, height_px, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


def form(*parts: tuple[str, bytes], boundary: str = "frontier") -> dict[str, Any]:
    """A multipart request put together by hand. parts: (rest of Content-Disposition, content)."""
    pieces = [
        f"--{boundary}\r\nContent-Disposition: form-data{disposition}\r\n\r\n".encode() + content + b"\r\n"
        for disposition, content in parts
    ]
    body = b"".join(pieces) + f"--{boundary}--\r\n".encode()
    return {"content": body, "headers": {"Content-Type": f"multipart/form-data; boundary={boundary}"}}


IMAGE = ('; name="image"; filename="a.png"', PHOTO)
MASK = encode(np.zeros((96, 128), np.uint8))
SMALL_MASK = encode(np.zeros((10, 10), np.uint8))

BAD_REQUESTS: list[tuple[str, dict[str, Any], int, str]] = [
    ("empty body", {"content": b""}, 400, "bad-upload"),
    ("empty file", {"files": {"image": ("a.png", b"")}}, 400, "bad-upload"),
    ("no field", form(), 400, "bad-upload"),
    ("wrong field name", {"files": {"photo": PHOTO}}, 400, "bad-upload"),
    ("two images", {"files": [("image", PHOTO), ("image", PHOTO)]}, 400, "bad-upload"),
    ("two masks", form(IMAGE, *[('; name="damage"; filename="m"', MASK)] * 2), 400, "bad-upload"),
    ("only a mask", {"files": {"damage": MASK}}, 400, "bad-upload"),
    ("image as text", form(('; name="image"', b"old.jpg")), 400, "bad-upload"),
    ("options as fields", form(IMAGE, ('; name="mode"', b"tile")), 400, "bad-upload"),
    ("long text field", form(('; name="image"', b"x" * 100_000)), 400, "bad-upload"),
    ("hundred fields", form(*[(f'; name="f{i}"', b"x") for i in range(100)]), 400, "bad-upload"),
    ("hundred files", form(*[(f'; name="f{i}"; filename="f"', b"x") for i in range(100)]), 400, "bad-upload"),
    ("part without a name", form(("", PHOTO)), 400, "bad-upload"),
    ("part with a huge header", form((f'; name="image"; filename="{"a" * 10_000}"', PHOTO)), 400, "bad-upload"),
    ("no boundary", {"content": PHOTO, "headers": {"Content-Type": "multipart/form-data"}}, 400, "bad-upload"),
    (
        "wrong boundary",
        form(IMAGE) | {"headers": {"Content-Type": "multipart/form-data; boundary=other"}},
        400,
        "bad-upload",
    ),
    (
        "endless boundary",
        {"content": PHOTO, "headers": {"Content-Type": f"multipart/form-data; boundary={'b' * 1000}"}},
        400,
        "bad-upload",
    ),
    (
        "a charset that cannot decode",
        form(IMAGE) | {"headers": {"Content-Type": "multipart/form-data; boundary=frontier; charset=undefined"}},
        400,
        "bad-upload",
    ),
    ("form cut short", form(IMAGE) | {"content": form(IMAGE)["content"][:300]}, 400, "bad-upload"),
    (
        "text renamed .jpg",
        {"files": {"image": ("a.jpg", b"Dear Sir or Madam", "image/jpeg")}},
        415,
        "unsupported-format",
    ),
    ("NUL bytes", {"content": bytes(1000)}, 415, "unsupported-format"),
    ("one byte", {"content": b"\xff"}, 415, "unsupported-format"),
    ("GIF", {"content": encode(grey_photo(), "GIF")}, 415, "unsupported-format"),
    ("BMP", {"content": encode(grey_photo(), "BMP")}, 415, "unsupported-format"),
    ("SVG", {"content": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'}, 415, "unsupported-format"),
    ("PDF", {"content": b"%PDF-1.7\n1 0 obj"}, 415, "unsupported-format"),
    ("EPS", {"content": b"%!PS-Adobe-3.0 EPSF-3.0\n"}, 415, "unsupported-format"),
    ("truncated JPEG", {"content": encode(grey_photo(), "JPEG")[:-500]}, 422, "photo-undecodable"),
    ("truncated PNG", {"content": PHOTO[: len(PHOTO) // 2]}, 422, "photo-undecodable"),
    ("JPEG's first bytes only", {"content": b"\xff\xd8\xff\xe0"}, 422, "photo-undecodable"),
    ("a PNG that promises 65,000 x 65,000", {"content": png_that_promises(65_000, 65_000)}, 422, "photo-too-large"),
    ("a mask of another size", {"files": {"image": PHOTO, "damage": SMALL_MASK}}, 422, "invalid-option"),
    ("a mask that is text", {"files": {"image": PHOTO, "protect": b"everywhere"}}, 422, "invalid-option"),
]

BAD_QUERIES = [
    ("sensitivity=2", "sensitivity"),
    ("sensitivity=-0.1", "sensitivity"),
    ("sensitivity=nan", "sensitivity"),
    ("sensitivity=a+lot", "sensitivity"),
    ("mode=foo", "mode"),
    ("mode=", "mode"),
    ("output=everything", "output"),
    ("format=gif", "format"),
    ("quality=0", "quality"),
    ("quality=101", "quality"),
    ("release=../../etc", "release"),
    ("modus=tile", "modus"),
]


@pytest.mark.parametrize(
    ("arguments", "status", "name"), [case[1:] for case in BAD_REQUESTS], ids=[c[0] for c in BAD_REQUESTS]
)
def test_a_bad_body_is_refused(client: TestClient, arguments: dict[str, Any], status: int, name: str) -> None:
    assert_problem(client.post("/restore", **arguments), status, name)


@pytest.mark.parametrize(("query", "parameter"), BAD_QUERIES, ids=[case[0] for case in BAD_QUERIES])
def test_a_bad_query_is_refused_by_name(client: TestClient, query: str, parameter: str) -> None:
    problem = assert_problem(client.post(f"/restore?{query}", content=PHOTO), 422, "invalid-parameter")
    assert [error["parameter"] for error in problem["errors"]] == [parameter]


def test_a_damage_map_in_another_format_is_refused(client: TestClient) -> None:
    assert_problem(client.post("/restore?output=damage_map&format=jpeg", content=PHOTO), 422, "invalid-option")


def test_another_release_is_refused_with_the_active_one_named(client: TestClient) -> None:
    problem = assert_problem(client.post("/restore?release=0099", content=PHOTO), 409, "wrong-release")
    assert problem["active"] == "0001"


def test_an_unknown_path_is_a_problem(client: TestClient) -> None:
    assert_problem(client.get("/nowhere"), 404, "not-found")


def test_a_wrong_method_is_a_problem_that_names_the_right_one(client: TestClient) -> None:
    answer = client.get("/restore")
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"


def test_too_many_pixels_state_limit_and_actual(make_client: MakeClient) -> None:
    problem = assert_problem(make_client(max_pixels=1000).post("/restore", content=PHOTO), 422, "photo-too-large")
    assert "128 x 96" in problem["detail"]
    assert "1,000" in problem["detail"]


def test_too_many_bytes_are_refused_announced_or_not_raw_or_form(make_client: MakeClient) -> None:
    client = make_client(max_upload_bytes=5000)
    announced = client.post("/restore", content=bytes(5001))
    assert "5,001" in assert_problem(announced, 413, "upload-too-large")["detail"]
    chunks = (bytes(1000) for _ in range(6))
    assert_problem(client.post("/restore", content=chunks), 413, "upload-too-large")
    assert_problem(client.post("/restore", files={"image": bytes(5000)}), 413, "upload-too-large")
    body = form(('; name="image"; filename="a"', bytes(5000)))
    chunked = body | {"content": iter([body["content"]])}
    assert_problem(client.post("/restore", **chunked), 413, "upload-too-large")


def test_a_body_of_exactly_the_limit_is_read(make_client: MakeClient) -> None:
    assert make_client(max_upload_bytes=len(PHOTO)).post("/restore", content=PHOTO).status_code == 200


def test_uploads_of_all_clients_together_are_bounded(make_client: MakeClient) -> None:
    client = make_client(max_upload_bytes=5000, max_buffered_bytes=5000)
    budget = context_of(client).upload_budget
    with budget.share() as other_client:
        other_client.grow(4990)
        answer = client.post("/restore", content=PHOTO)
        assert_problem(answer, 503, "no-room-for-upload")
        assert int(answer.headers["retry-after"]) > 0
    assert client.post("/restore", content=PHOTO).status_code == 200
    assert budget.held_bytes == 0


def test_room_for_uploads_is_given_back_after_a_refusal(client: TestClient) -> None:
    client.post("/restore", content=b"no photo")
    client.post("/restore", **form(IMAGE, ('; name="mode"', b"tile")))
    assert context_of(client).upload_budget.held_bytes == 0


def test_an_unexpected_error_is_a_problem_without_internals(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client()
    monkeypatch.setattr("service.restoring.decode_photo", lambda *_: 1 // 0)
    with structlog.testing.capture_logs():
        answer = client.post("/restore", content=PHOTO, headers={"X-Request-ID": "quote-me"})
    problem = assert_problem(answer, 500, "internal-error")
    assert problem["request_id"] == "quote-me"
    assert "division" not in answer.text


def test_the_documented_statuses_are_those_that_exist(client: TestClient) -> None:
    documented = client.get("/openapi.json").json()["paths"]["/restore"]["post"]["responses"]
    assert set(documented) == {
        *("200", "400", "401", "403", "408", "409", "412", "413", "415", "422", "429", "500", "503", "504")
    }
    described = documented["422"]["content"]["application/problem+json"]["schema"]
    assert set(described["required"]) == {"type", "title", "status", "detail", "request_id"}


def test_the_api_page_lists_every_problem() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    kinds = [INTERNAL_ERROR, *PROBLEM_KINDS.values()]
    assert [kind.name for kind in kinds if f"`{kind.name}`" not in page] == ["client-gone"]
