"""The examples in the API's documentation are what the service answers: each is caused here, and compared."""

import re
import shutil
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import torch
from fastapi.testclient import TestClient
from PIL import Image

from service.app import create_app
from service.errors import INTERNAL_ERROR, PROBLEM_KINDS
from service.examples import ALIVE, ETAG, MODELS, PROBLEM_DETAILS, READY, RESTORED_HEADERS
from service.settings import Settings

from .bad_inputs import SMALL_MASK, chunk, png, with_chunks
from .key_files import add, bearer
from .live import listening
from .serving import MakeClient, context_of, encode, grey_photo, publish, scratched_photo
from .test_codecs import files_of_workers_within, sabotage
from .test_restoring import post, slowed, wait_for_jobs

PHOTO = encode(grey_photo())
TAG = re.compile(r'"[0-9a-f]{64}"')


class Causes:
    """A method for each problem, named as it is; each returns the answer to a request that has it."""

    def __init__(self, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path) -> None:
        self.make_client = make_client
        self.monkeypatch = monkeypatch
        self.store = store
        self.empty_store = tmp_path

    def bad_upload(self) -> Any:
        return self.make_client().post("/restore", files={"photo": PHOTO})

    def key_missing(self) -> Any:
        return self.guarded_client().get("/models")

    def key_unknown(self) -> Any:
        return self.guarded_client().get("/models", headers=bearer("rk_made-up"))

    def scope_missing(self) -> Any:
        return self.guarded_client().post("/models/0001/activate", headers=bearer(self.key))

    def quota_exceeded(self) -> Any:
        client = self.guarded_client(requests_per_minute=1)
        client.get("/models", headers=bearer(self.key))
        return client.get("/models", headers=bearer(self.key))

    def no_release(self) -> Any:
        return self.guarded_client("admin").post("/models/0099/activate", headers=bearer(self.key))

    def release_pinned(self) -> Any:
        client = self.guarded_client("admin", settings={"model_version": "0001"})
        return client.post("/models/0099/activate", headers=bearer(self.key))

    def release_refused(self) -> Any:
        store = self.empty_store / "store"
        shutil.copytree(self.store / "0001", store / "0001")
        client = self.guarded_client("admin", settings={"model_store": store, "store_poll_seconds": 3600})
        shutil.copytree(self.store / "0001", store / "0002")
        return client.post("/models/0002/activate", headers=bearer(self.key))

    def guarded_client(self, scopes: str = "restore", settings: dict[str, Any] | None = None, **quota: float) -> Any:
        """Of a service that knows `self.key` afterwards."""
        keys_file = self.empty_store / "keys.toml"
        self.key = add(keys_file, "reading-room", scopes, **quota)
        return self.make_client(api_keys_file=keys_file, **(settings or {}))

    def upload_too_slow(self) -> Any:
        """Over a socket, because a client for tests has sent everything before the service looks."""
        with listening(create_app(Settings(model_store=self.store, upload_timeout_seconds=0.5))) as address:
            host, port = address.removeprefix("http://").split(":")
            with socket.create_connection((host, int(port))) as stalling:
                stalling.sendall(
                    b"POST /restore HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n"
                )
                answer = b"".join(iter(lambda: stalling.recv(65536), b""))
        head, body = answer.split(b"\r\n\r\n")
        return httpx.Response(int(head.split()[1]), content=body)

    def wrong_release(self) -> Any:
        return self.make_client().post("/restore?release=0099", content=PHOTO)

    def already_held(self) -> Any:
        client = self.make_client()
        etag = client.post("/restore", content=PHOTO).headers["etag"]
        return client.post("/restore", content=PHOTO, headers={"If-None-Match": etag})

    def upload_too_large(self) -> Any:
        return self.make_client(max_upload_bytes=5000).post("/restore", content=bytes(6000))

    def unsupported_format(self) -> Any:
        return self.make_client().post("/restore", content=encode(grey_photo(), "GIF"))

    def unsupported_photo(self) -> Any:
        frames = [Image.fromarray(grey_photo()), Image.fromarray(scratched_photo())]
        animation = self.empty_store / "moving.png"
        frames[0].save(animation, save_all=True, append_images=frames[1:])
        return self.make_client().post("/restore", content=animation.read_bytes())

    def photo_undecodable(self) -> Any:
        return self.make_client().post("/restore", content=PHOTO[: len(PHOTO) // 2])

    def photo_too_large(self) -> Any:
        return self.make_client().post("/restore", content=png(30_000, 20_000))

    def metadata_too_large(self) -> Any:
        photo = with_chunks(chunk(b"tEXt", b"Comment\0" + b"x" * 2000))
        return self.make_client(max_metadata_bytes=1000).post("/restore", content=photo)

    def photo_unsafe(self) -> Any:
        client = self.make_client(decode_timeout_seconds=1.0)
        sabotage(client, 1, "decode_bounded", time.sleep, 100)
        return client.post("/restore", content=PHOTO)

    def codec_unavailable(self) -> Any:
        def fail(*_: Any) -> int:
            raise OSError(12, "Cannot allocate memory")

        client = self.make_client()
        self.monkeypatch.setattr("os.memfd_create", fail)
        return client.post("/restore", content=PHOTO)

    def no_room_for_files(self) -> Any:
        client = self.make_client()
        with files_of_workers_within(client, 10_000):
            return client.post("/restore", content=PHOTO)

    def denoiser_missing(self) -> Any:
        return self.make_client().post("/restore?denoise=0.5", content=PHOTO)

    def invalid_option(self) -> Any:
        return self.make_client().post("/restore", files={"image": PHOTO, "damage": SMALL_MASK})

    def invalid_parameter(self) -> Any:
        return self.make_client().post("/restore?sensitivity=2", content=PHOTO)

    def not_ready(self) -> Any:
        return self.make_client(ready=False, model_store=self.empty_store).post("/restore", content=PHOTO)

    def queue_full(self) -> Any:
        client = self.make_client(max_queued_requests=2)
        with ThreadPoolExecutor(2) as callers, slowed(client):
            for _ in range(2):
                post(callers, client)
            wait_for_jobs(client, 2)
            return client.post("/restore", content=PHOTO)

    def no_room_for_upload(self) -> Any:
        client = self.make_client(max_upload_bytes=5000, max_buffered_bytes=5000)
        with context_of(client).upload_budget.share() as another_client:
            another_client.grow(4990)
            return client.post("/restore", content=PHOTO)

    def draining(self) -> Any:
        client = self.make_client()
        context_of(client).queue.drain()
        return client.post("/restore", content=PHOTO)

    def device_broken(self) -> Any:
        client = self.make_client()

        def fail(*_: Any) -> torch.Tensor:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

        self.monkeypatch.setattr(context_of(client).releases.restorer().generator, "detect", fail)
        return client.post("/restore", content=PHOTO)

    def deadline_exceeded(self) -> Any:
        client = self.make_client(deadline_seconds=0.2)
        with slowed(client):
            return client.post("/restore", content=PHOTO)

    def internal_error(self) -> Any:
        client = self.make_client()
        self.monkeypatch.setattr("service.codecs.Codec.decode", lambda *_: 1 // 0)
        with structlog.testing.capture_logs():
            return client.post("/restore", content=PHOTO)


@pytest.fixture
def causes(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path) -> Causes:
    return Causes(make_client, monkeypatch, store, tmp_path)


def test_every_problem_has_an_example() -> None:
    kinds = {kind.name for kind in [INTERNAL_ERROR, *PROBLEM_KINDS.values()]}
    assert kinds - PROBLEM_DETAILS.keys() == {"client-gone"}, "nobody is there to read that one"


@pytest.mark.parametrize("name", PROBLEM_DETAILS)
def test_the_example_of_a_problem_is_what_the_service_answers(causes: Causes, name: str) -> None:
    cause: Callable[[], Any] = getattr(causes, name.replace("-", "_"))
    body = cause().json()
    assert body["type"] == f"urn:photo-restoration:problem:{name}"
    detail = body["detail"].replace(str(causes.empty_store), "/srv/store")
    assert TAG.sub(ETAG, detail) == PROBLEM_DETAILS[name]


def test_the_documentation_shows_the_example_of_every_problem(client: TestClient) -> None:
    calls = [documented(client, path, "post") for path in ("/restore", "/models/{version}/activate")]
    shown = {
        name: example["value"]
        for call in calls
        for response in call["responses"].values()
        for name, example in response["content"].get("application/problem+json", {}).get("examples", {}).items()
    }
    assert shown.keys() == PROBLEM_DETAILS.keys()
    for name, body in shown.items():
        assert body["type"].endswith(f":{name}")
        assert body["detail"] == PROBLEM_DETAILS[name]


def test_no_call_is_documented_with_a_problem_of_another(client: TestClient) -> None:
    def conflicts(path: str) -> set[str]:
        return set(
            documented(client, path, "post")["responses"]["409"]["content"]["application/problem+json"]["examples"]
        )

    assert conflicts("/restore") == {"wrong-release"}
    assert conflicts("/models/{version}/activate") == {"release-pinned", "release-refused"}


def test_every_parameter_has_a_description_and_an_example_that_is_taken(
    make_client: MakeClient, tmp_path: Path
) -> None:
    publish(tmp_path / "denoising", correction=0.05)
    client = make_client(model_store=tmp_path / "denoising")
    for parameter in documented(client, "/restore", "post")["parameters"]:
        assert parameter["schema"].get("description") or parameter["description"], parameter["name"]
        examples = parameter["schema"].get("examples") or [parameter["example"]]
        for example in examples:
            if parameter["in"] == "query":
                needed = {"preview": {"output": "all"}, "quality": {"format": "jpeg"}}.get(parameter["name"], {})
                answer = client.post("/restore", params={parameter["name"]: example} | needed, content=PHOTO)
            else:
                answer = client.post("/restore", headers={parameter["name"]: example}, content=PHOTO)
            assert answer.status_code == 200, (parameter["name"], answer.text)


def test_every_header_of_an_answer_is_documented_and_its_example_has_the_form_it_really_has(client: TestClient) -> None:
    repaired = client.post("/restore", content=encode(scratched_photo())).headers
    left = client.post("/restore?sensitivity=0", content=encode(scratched_photo())).headers
    answer = {**left, **repaired}
    headers = documented(client, "/restore", "post")["responses"]["200"]["headers"]
    assert headers.keys() == RESTORED_HEADERS.keys()
    ours = {name for name in answer if name.startswith("x-") or name in ("etag", "server-timing")}
    assert ours - {"x-content-type-options"} <= {name.lower() for name in headers}
    for name, header in headers.items():
        assert header["description"]
        assert form_of(header["example"]) == form_of(answer[name.lower()]), name


def test_whoever_is_to_try_again_is_told_when_in_the_documentation_too(client: TestClient) -> None:
    responses = documented(client, "/restore", "post")["responses"]
    assert "Retry-After" in responses["503"]["headers"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/models"])
def test_the_examples_of_the_other_calls_are_their_answers(client: TestClient, path: str) -> None:
    content = documented(client, path, "get")["responses"]["200"]["content"]
    answer = client.get(path).json()
    assert {"/livez": ALIVE, "/readyz": READY, "/models": MODELS}[path] == answer
    assert content["application/json"]["example"] == without_null(answer)  # FastAPI leaves it out


def without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_null(each) for name, each in value.items() if each is not None}
    return [without_null(each) for each in value] if isinstance(value, list) else value


def documented(client: TestClient, path: str, method: str) -> dict[str, Any]:
    operation: dict[str, Any] = client.get("/openapi.json").json()["paths"][path][method]
    return operation


def form_of(value: str) -> str:
    """Numbers and hashes differ from answer to answer."""
    return re.sub(r"\d+\.\d+", "0.0", re.sub(r"\b[0-9a-f]{16,}\b", "hash", value))
