"""What is refused, and how; `bad_inputs.py` has the table of bad bodies."""

from pathlib import Path

import pytest
import structlog
from fastapi.testclient import TestClient

from service.errors import INTERNAL_ERROR, PROBLEM_KINDS

from .bad_inputs import IMAGE, form
from .serving import MakeClient, assert_problem, context_of, encode, grey_photo

PHOTO = encode(grey_photo())


BAD_QUERIES = [
    ("sensitivity=2", "sensitivity"),
    ("denoise=1.1", "denoise"),
    ("denoise=nan", "denoise"),
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
    ("release=\u0660\u0660\u0660\u0661", "release"),
    ("modus=tile", "modus"),
    ("mode=tile&mode=auto", "mode"),
    ("mode=tile&mode=tile", "mode"),
]


@pytest.mark.parametrize(("query", "parameter"), BAD_QUERIES, ids=[case[0] for case in BAD_QUERIES])
def test_a_bad_query_is_refused_by_name(client: TestClient, query: str, parameter: str) -> None:
    problem = assert_problem(client.post(f"/restore?{query}", content=PHOTO), 422, "invalid-parameter")
    assert [error["parameter"] for error in problem["errors"]] == [parameter]


def test_a_damage_map_in_another_format_is_refused(client: TestClient) -> None:
    assert_problem(client.post("/restore?output=damage_map&format=jpeg", content=PHOTO), 422, "invalid-option")


def test_another_release_is_refused_with_the_active_one_named(client: TestClient) -> None:
    problem = assert_problem(client.post("/restore?release=0099", content=PHOTO), 409, "wrong-release")
    assert problem["active"] == "0001"


@pytest.mark.parametrize("num_bytes", [100, 100_000])
@pytest.mark.parametrize("field", ["image", "protect"])
def test_a_file_without_a_filename_is_told_that_it_needs_one(client: TestClient, field: str, num_bytes: int) -> None:
    parts = form(IMAGE, (f'; name="{field}"', bytes(num_bytes)))
    problem = assert_problem(client.post("/restore", **parts), 400, "bad-upload")
    assert f"the field '{field}' has no filename" in problem["detail"]


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
    monkeypatch.setattr("service.codecs.Codec.decode", lambda *_: 1 // 0)
    with structlog.testing.capture_logs():
        answer = client.post("/restore", content=PHOTO, headers={"X-Request-ID": "quote-me"})
    problem = assert_problem(answer, 500, "internal-error")
    assert problem["request_id"] == "quote-me"
    assert "division" not in answer.text


def test_the_documented_statuses_are_those_that_exist(client: TestClient) -> None:
    documented = client.get("/openapi.json").json()["paths"]["/restore"]["post"]["responses"]
    assert set(documented) == {
        *("200", "400", "401", "403", "408", "409", "412", "413", "415", "422", "429", "500", "503", "504", "507")
    }
    described = documented["422"]["content"]["application/problem+json"]["schema"]
    assert set(described["required"]) == {"type", "title", "status", "detail", "request_id"}


def test_the_api_page_lists_every_problem() -> None:
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    kinds = [INTERNAL_ERROR, *PROBLEM_KINDS.values()]
    assert [kind.name for kind in kinds if f"`{kind.name}`" not in page] == ["client-gone"]
