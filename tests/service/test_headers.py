"""What browsers are told with every answer."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from .serving import MakeClient, encode, grey_photo, scratched_photo

SITE = "https://photos.example.org"
ANSWERS = {
    "a restored photo": ("POST", "/restore", 200),
    "releases": ("GET", "/models", 200),
    "health": ("GET", "/livez", 200),
    "metrics": ("GET", "/metrics", 200),
    "the index": ("GET", "/", 200),
    "documentation": ("GET", "/docs", 200),
    "a file of the documentation": ("GET", "/docs/assets/swagger-ui.css", 200),
    "the OpenAPI document": ("GET", "/openapi.json", 200),
    "no such path": ("GET", "/nowhere", 404),
    "a wrong method": ("PUT", "/restore", 405),
    "a wrong parameter": ("POST", "/restore?mode=nonsense", 422),
    "a key that is missing": ("POST", "/models/0001/activate", 401),
}


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS.values(), ids=ANSWERS.keys())
def test_every_answer_tells_browsers_to_be_careful(client: TestClient, method: str, path: str, status: int) -> None:
    content = encode(scratched_photo()) if path == "/restore" else None
    answer = client.request(method, path, content=content)
    assert answer.status_code == status
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    policy = answer.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "http" not in policy, "nothing comes from another host"


def test_an_unexpected_error_tells_browsers_to_be_careful(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(cors_origins=(SITE,))
    monkeypatch.setattr("service.routes.etag_of", lambda *_: 1 // 0)
    answer = client.post("/restore", content=encode(grey_photo()), headers={"Origin": SITE})
    assert answer.status_code == 500
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["access-control-allow-origin"] == SITE


@pytest.mark.parametrize("path", ["/restore", "/models", "/livez", "/metrics", "/openapi.json", "/nowhere"])
def test_no_answer_is_kept_by_a_cache(client: TestClient, path: str) -> None:
    answer = client.post(path, content=encode(grey_photo())) if path == "/restore" else client.get(path)
    assert answer.headers["cache-control"] == "no-store"


def test_files_of_the_service_may_be_kept(client: TestClient) -> None:
    answer = client.get("/docs/assets/swagger-ui.css")
    assert "cache-control" not in answer.headers
    again = client.get("/docs/assets/swagger-ui.css", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_data_may_load_and_run_nothing(client: TestClient) -> None:
    assert client.get("/models").headers["content-security-policy"].startswith("default-src 'none'")


def ask_before_sending_a_photo(client: TestClient, origin: str) -> dict[str, str]:
    """What a browser asks before a page of another site may send a key along (a preflight)."""
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    return dict(client.options("/restore", headers={"Origin": origin} | asked).headers)


def test_no_other_site_may_call_unless_it_was_named(client: TestClient, make_client: MakeClient) -> None:
    assert not [name for name in ask_before_sending_a_photo(client, SITE) if name.startswith("access-control")]
    assert "access-control-allow-origin" not in client.get("/models", headers={"Origin": SITE}).headers
    open_to_one = make_client(cors_origins=SITE)
    assert "access-control-allow-origin" not in ask_before_sending_a_photo(open_to_one, "https://example.com")
    answer = open_to_one.get("/models", headers={"Origin": "https://example.com"})
    assert "access-control-allow-origin" not in answer.headers


def test_a_site_that_was_named_may_call_and_read(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(cors_origins=f"https://first.example.org, {SITE}")
    permission = ask_before_sending_a_photo(client, SITE)
    assert permission["access-control-allow-origin"] == SITE
    assert "authorization" in permission["access-control-allow-headers"].lower()
    assert "access-control-allow-credentials" not in permission
    answer = client.post("/restore", content=encode(grey_photo()), headers={"Origin": SITE})
    assert answer.headers["access-control-allow-origin"] == SITE
    readable = answer.headers["access-control-expose-headers"].lower()
    assert {"x-request-id", "x-damage-ratio", "retry-after"} <= set(readable.split(", "))
    refusal = client.post("/models/0001/activate", headers={"Origin": SITE})
    assert (refusal.status_code, refusal.headers["access-control-allow-origin"]) == (401, SITE)
