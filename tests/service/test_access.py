"""Who may call what, and how often."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from fastapi.testclient import TestClient

from service.app import create_app
from service.keys import parse_keys
from service.settings import Settings

from .key_files import add, bearer
from .serving import MakeClient, assert_problem, context_of, encode, grey_photo, publish, wait_until_ready

PHOTO = encode(grey_photo())  # 12,288 pixels
GUARDED = [("POST", "/restore"), ("GET", "/models"), ("POST", "/models/0001/activate")]
OPEN = ["/", "/livez", "/readyz", "/metrics", "/docs", "/docs/assets/swagger-ui.css", "/openapi.json"]


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.toml"


@pytest.fixture(scope="module")
def guarded(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A client of a service with a key that the client does not have."""
    keys_file = tmp_path_factory.mktemp("keys") / "keys.toml"
    add(keys_file, "somebody")
    with TestClient(create_app(Settings(model_store=store, api_keys_file=keys_file))) as client:
        wait_until_ready(client)
        yield client


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_without_a_key_nothing_that_is_guarded_is_done(guarded: TestClient, method: str, path: str) -> None:
    refusal = guarded.request(method, path)
    assert_problem(refusal, 401, "key-missing")
    assert refusal.headers["www-authenticate"] == 'Bearer realm="photo-restoration"'


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("presented", ["rk_" + "A" * 43, "x", "ü".encode("latin-1"), "k" * 50_000])
def test_a_wrong_key_is_as_good_as_none(guarded: TestClient, method: str, path: str, presented: str | bytes) -> None:
    refusal = guarded.request(method, path, headers={"X-API-Key": presented})
    problem = assert_problem(refusal, 401, "key-unknown")
    assert refusal.headers["www-authenticate"] == 'Bearer realm="photo-restoration", error="invalid_token"'
    assert str(presented) not in problem["detail"]


def test_the_hash_of_a_key_opens_nothing(guarded: TestClient) -> None:
    path = context_of(guarded).settings.api_keys_file
    assert path is not None
    (stored,) = parse_keys(path.read_bytes(), path)
    assert_problem(guarded.get("/models", headers=bearer(stored.sha256)), 401, "key-unknown")


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "rk_abc"])
def test_a_header_that_shows_no_key_is_as_good_as_none(guarded: TestClient, header: str) -> None:
    assert_problem(guarded.get("/models", headers={"Authorization": header}), 401, "key-missing")


@pytest.mark.parametrize("path", OPEN)
def test_page_documentation_health_and_metrics_need_no_key(guarded: TestClient, path: str) -> None:
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize(
    "show",
    [
        bearer,
        lambda key: {"Authorization": f"bearer {key}"},
        lambda key: {"X-API-Key": key},
        lambda key: {"Authorization": "Basic cHJveHk6cGFzcw==", "X-API-Key": key},
    ],
    ids=["bearer", "lower case", "header of its own", "beside what a proxy asks for"],
)
def test_a_key_opens(make_client: MakeClient, keys_file: Path, show: Callable[[str], dict[str, str]]) -> None:
    key = add(keys_file)
    client = make_client(api_keys_file=keys_file)
    assert client.get("/models", headers=show(key)).status_code == 200
    assert client.post("/restore", content=PHOTO, headers=show(key)).content == PHOTO


def test_each_of_several_keys_opens(make_client: MakeClient, keys_file: Path) -> None:
    keys = [add(keys_file, f"key-{number}") for number in range(5)]
    client = make_client(api_keys_file=keys_file)
    assert [client.get("/models", headers=bearer(key)).status_code for key in keys] == [200] * 5


def test_every_hash_is_compared_whether_an_earlier_one_matched_or_not(
    make_client: MakeClient, keys_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [add(keys_file, f"key-{number}") for number in range(5)]
    client = make_client(api_keys_file=keys_file)
    compared: list[str] = []

    def note(one: str, other: str) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("service.keyring.hmac.compare_digest", note)
    for presented in (keys[0], keys[-1], "unknown"):
        client.get("/models", headers=bearer(presented))
    assert len(compared) == 3 * 5


def test_a_key_without_the_scope_is_refused(make_client: MakeClient, keys_file: Path) -> None:
    restoring, administrator = add(keys_file, "reader", "restore"), add(keys_file, "operator", "admin")
    client = make_client(api_keys_file=keys_file)
    refusal = client.post("/models/0001/activate", headers=bearer(restoring))
    problem = assert_problem(refusal, 403, "scope-missing")
    assert "'reader'" in problem["detail"]
    assert refusal.headers["www-authenticate"].endswith('error="insufficient_scope", scope="admin"')
    assert_problem(client.post("/restore", content=PHOTO, headers=bearer(administrator)), 403, "scope-missing")
    assert client.get("/models", headers=bearer(administrator)).status_code == 200


def test_without_keys_everybody_may_restore_and_nobody_is_an_administrator(client: TestClient) -> None:
    assert client.post("/restore", content=PHOTO).status_code == 200
    assert client.get("/models").status_code == 200
    refusal = client.post("/models/0001/activate")
    assert "'admin'" in assert_problem(refusal, 401, "key-missing")["detail"]


def test_the_key_is_asked_for_before_the_query_is_looked_at(guarded: TestClient) -> None:
    assert_problem(guarded.post("/restore?mode=nonsense"), 401, "key-missing")
    assert_problem(guarded.post("/models/nonsense/activate"), 401, "key-missing")


def test_requests_beyond_the_quota_are_told_how_long_to_wait(make_client: MakeClient, keys_file: Path) -> None:
    key = add(keys_file, requests_per_minute=2, burst_requests=3)
    other = add(keys_file, "other")
    client = make_client(api_keys_file=keys_file)
    statuses = [client.get("/models", headers=bearer(key)).status_code for _ in range(3)]
    assert statuses == [200] * 3
    refusal = client.post("/restore", content=PHOTO, headers=bearer(key))
    assert_problem(refusal, 429, "quota-exceeded")
    assert 1 <= int(refusal.headers["retry-after"]) <= 30
    assert client.get("/models", headers=bearer(other)).status_code == 200


def test_who_waits_as_long_as_retry_after_says_is_let_in(
    make_client: MakeClient, keys_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 1000.0
    monkeypatch.setattr("service.quotas.now_seconds", lambda: seconds)
    key = add(keys_file, requests_per_minute=7, burst_requests=1)
    client = make_client(api_keys_file=keys_file)
    assert client.get("/models", headers=bearer(key)).status_code == 200
    refusal = client.get("/models", headers=bearer(key))
    seconds += int(refusal.headers["retry-after"]) - 1
    assert client.get("/models", headers=bearer(key)).status_code == 429
    seconds += 1
    assert client.get("/models", headers=bearer(key)).status_code == 200


def test_megapixels_beyond_the_quota_are_refused_before_anything_is_decoded(
    make_client: MakeClient, keys_file: Path
) -> None:
    key = add(keys_file, megapixels_per_minute=0.012288)
    client = make_client(api_keys_file=keys_file)
    assert client.post("/restore", content=PHOTO, headers=bearer(key)).status_code == 200
    truncated = encode(grey_photo(), "JPEG")[:-500]  # a 422 to whoever decodes it
    refusal = client.post("/restore", content=truncated, headers=bearer(key))
    problem = assert_problem(refusal, 429, "quota-exceeded")
    assert "megapixels" in problem["detail"]
    assert 1 <= int(refusal.headers["retry-after"]) <= 60


def test_a_repeat_that_the_caller_holds_costs_no_megapixels(make_client: MakeClient, keys_file: Path) -> None:
    key = add(keys_file, megapixels_per_minute=0.012288)
    client = make_client(api_keys_file=keys_file)
    etag = client.post("/restore", content=PHOTO, headers=bearer(key)).headers["etag"]
    repeat = client.post("/restore", content=PHOTO, headers=bearer(key) | {"If-None-Match": etag})
    assert_problem(repeat, 412, "already-held")


def test_refusals_for_the_quota_are_counted(make_client: MakeClient, keys_file: Path) -> None:
    key = add(keys_file, requests_per_minute=1)
    client = make_client(api_keys_file=keys_file)
    for _ in range(3):
        client.post("/restore", content=PHOTO, headers=bearer(key))
    assert 'restore_rejected_total{reason="quota-exceeded"} 2.0' in client.get("/metrics").text


def test_the_log_names_the_key_and_never_shows_it(make_client: MakeClient, keys_file: Path) -> None:
    key = add(keys_file, "reading-room")
    client = make_client(api_keys_file=keys_file)
    with structlog.testing.capture_logs() as lines:
        client.post("/restore", content=PHOTO, headers=bearer(key))
        client.post("/restore", content=PHOTO, headers=bearer("rk_made-up"))
    known, unknown = (line for line in lines if line["event"] == "answered")
    assert (known["key_name"], known["status"]) == ("reading-room", 200)
    assert (unknown["key_name"], unknown["status"]) == (None, 401)
    assert key not in str(lines)
    assert "made-up" not in str(lines)


def test_the_openapi_document_tells_of_keys_and_their_refusals(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schemes = document["components"]["securitySchemes"].values()
    assert {(scheme["type"], scheme.get("scheme", scheme.get("name"))) for scheme in schemes} == {
        ("http", "bearer"),
        ("apiKey", "X-API-Key"),
    }
    for method, path in GUARDED:
        call = document["paths"][path.replace("0001", "{version}")][method.lower()]
        assert [list(alternative) for alternative in call["security"]] == [["HTTPBearer"], ["APIKeyHeader"]]
        assert {"401", "429"} <= call["responses"].keys()
        assert "application/problem+json" in call["responses"]["401"]["content"]
    assert all("security" not in document["paths"][path]["get"] for path in ("/livez", "/readyz", "/metrics"))


def test_an_administrator_changes_the_release(make_client: MakeClient, keys_file: Path, tmp_path: Path) -> None:
    key = add(keys_file, "operator", "admin")
    store = tmp_path / "store"
    for _ in range(2):
        publish(store)
    client = make_client(api_keys_file=keys_file, model_store=store)
    with structlog.testing.capture_logs() as lines:
        answer = client.post("/models/0001/activate", headers=bearer(key))
    assert (answer.status_code, answer.json()["active"]) == (200, "0001")
    (asked,) = [line for line in lines if line["event"] == "activation asked for"]
    assert (asked["version"], asked["key_name"]) == ("0001", "operator")
