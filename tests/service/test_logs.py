import pytest
import structlog
from fastapi.testclient import TestClient

from .serving import encode, grey_photo


def test_a_harmless_request_id_is_echoed(client: TestClient) -> None:
    answer = client.get("/livez", headers={"X-Request-ID": "scan-42_a.1"})
    assert answer.headers["x-request-id"] == "scan-42_a.1"


@pytest.mark.parametrize("offered", ["", "a" * 65, "with space", "line\tbreak", "<script>", "a;b", "rk_" + "a" * 43])
def test_any_other_request_id_is_replaced(client: TestClient, offered: str) -> None:
    answer = client.get("/livez", headers={"X-Request-ID": offered})
    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-request-id"].isalnum()


def test_every_request_has_its_own_id(client: TestClient) -> None:
    assert client.get("/livez").headers["x-request-id"] != client.get("/livez").headers["x-request-id"]


def test_a_request_leaves_one_line_with_its_id_and_nothing_of_its_content(client: TestClient) -> None:
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        files = {"image": ("my-secret-name.png", encode(grey_photo()))}
        client.post("/restore?sensitivity=0.25", files=files, headers={"X-Request-ID": "abc"})
    (line,) = [line for line in lines if line["event"] == "answered"]
    assert (line["request_id"], line["method"], line["route"], line["status"]) == ("abc", "POST", "/restore", 200)
    assert "secret" not in str(lines)


def test_a_refusal_is_logged_with_its_problem(client: TestClient) -> None:
    with structlog.testing.capture_logs() as lines:
        client.post("/restore", content=b"no photo")
    assert lines[-1]["problem"] == "unsupported-format"


def test_an_unforeseen_error_is_logged_once_with_its_traceback_and_the_request_id(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.codecs.Codec.decode", lambda *_: 1 // 0)
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        client.post("/restore", content=encode(grey_photo()), headers={"X-Request-ID": "abc"})
    (line,) = [line for line in lines if line.get("exc_info")]
    assert (line["event"], line["request_id"]) == ("failed", "abc")
