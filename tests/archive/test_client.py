"""The client against the real service, and against one that behaves badly."""

import asyncio
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

from archive.client import AsyncClient, Client, RestoreParameters
from archive.errors import DeadlineExceeded, NotAllowed, PhotoRefused, ServiceProblem, Unreachable, WrongRelease
from service.answers import RestoreQuery

from ..service.serving import decode, encode, grey_photo, scratched_photo
from .conftest import REPOSITORY
from .scripted_server import ScriptedServer, problem


def test_a_photo_is_restored(address: str, tmp_path: Path) -> None:
    old = tmp_path / "old.png"
    old.write_bytes(encode(scratched_photo()))
    with Client(address) as client:
        restored = client.restore(old)
        assert client.restore(old.read_bytes()).content == restored.content
    assert decode(restored.content).shape == (96, 128, 3)
    assert 0 < restored.damage_ratio < 1
    assert restored.model_version == "0001"
    assert restored.etag
    assert restored.request_id
    assert "infer" in restored.server_timing


def test_it_is_told_which_sensitivity_would_find_what_is_not_sure_enough(address: str) -> None:
    with Client(address) as client:
        assert client.restore(encode(scratched_photo())).suspected_from is None
        found_from = client.restore(encode(scratched_photo()), sensitivity=0.0).suspected_from
        assert found_from is not None
        assert client.restore(encode(scratched_photo()), sensitivity=found_from).damage_ratio > 0.0


def test_a_damage_map_comes_along_when_asked_for(address: str) -> None:
    photo = encode(scratched_photo())
    with Client(address) as client:
        alone = client.restore(photo)
        with_map = client.restore(photo, damage_map=True)
    assert alone.damage_map is None
    assert with_map.content == alone.content
    assert with_map.damage_map is not None
    assert decode(with_map.damage_map)[0, 64] > 200


def test_masks_and_options_reach_the_service(address: str) -> None:
    photo, everywhere = encode(scratched_photo()), encode(grey_photo() * 0 + 255)
    with Client(address) as client:
        assert client.restore(photo, protect=everywhere).content == photo
        assert client.restore(photo, format="webp", quality=50, mode="tile").content[8:12] == b"WEBP"
        with pytest.raises(PhotoRefused, match="losslessly") as refused:
            client.restore(photo, format="tiff", quality=50, sensitivity=0.4)
    assert refused.value.status == 422


def test_the_client_takes_what_the_service_does() -> None:
    ours = get_type_hints(RestoreParameters)
    theirs = {name: field.annotation for name, field in RestoreQuery.model_fields.items()}
    assert theirs.keys() - ours.keys() == {"output", "preview"}  # damage_map is in place of them
    for name in theirs.keys() & ours.keys():
        assert theirs[name] in (ours[name], ours[name] | None), name


def test_problems_are_typed_errors(address: str) -> None:
    with Client(address) as client:
        with pytest.raises(PhotoRefused) as refused:
            client.restore(b"a letter")
        assert (refused.value.kind, refused.value.status) == ("unsupported-format", 415)
        assert refused.value.request_id
        with pytest.raises(WrongRelease):
            client.restore(encode(grey_photo()), release="0009")


@pytest.mark.parametrize("status", [400, 401, 403, 409, 413, 415, 422, 500])
def test_what_will_not_pass_is_not_tried_again(scripted: ScriptedServer, status: int) -> None:
    scripted.answer = lambda _: problem(status, "told-so")
    with Client(scripted.address) as client, pytest.raises(ServiceProblem) as raised:
        client.restore(b"photo")
    assert raised.value.kind == "told-so"
    assert isinstance(raised.value, NotAllowed) == (status in (401, 403))
    assert len(scripted.seen) == 1


def test_what_may_pass_is_tried_again(scripted: ScriptedServer) -> None:
    hang_up = (0, {}, b"")
    bad_gateway = (502, {"Content-Type": "text/html"}, b"<h1>Bad gateway</h1>")
    busy, late = problem(503, "queue-full", Retry_After="0"), problem(504, "deadline-exceeded")
    scripted.say_first(busy, hang_up, late, bad_gateway)
    with Client(scripted.address) as client:
        assert client.restore(b"photo").content == b"photo"
    assert len(scripted.seen) == 5


def test_retry_after_is_honoured(scripted: ScriptedServer) -> None:
    scripted.say_first(problem(429, "quota-exceeded", Retry_After="1"))
    with Client(scripted.address) as client:
        begun_seconds = time.monotonic()
        client.restore(b"photo")
    assert time.monotonic() - begun_seconds >= 1.0


def test_waits_that_a_quota_asks_for_are_not_counted(scripted: ScriptedServer) -> None:
    later = problem(429, "quota-exceeded", Retry_After="0.4")
    scripted.say_first(later, later, later)
    with Client(scripted.address, patience_seconds=0.2) as client:
        assert client.restore(b"photo").content == b"photo"
    assert len(scripted.seen) == 4


def test_patience_ends(scripted: ScriptedServer) -> None:
    scripted.answer = lambda _: problem(504, "deadline-exceeded")
    with Client(scripted.address, patience_seconds=0.5) as client, pytest.raises(DeadlineExceeded):
        client.restore(b"photo")


def test_a_service_that_is_not_there_is_named() -> None:
    with (
        Client("http://127.0.0.1:9", patience_seconds=0) as client,
        pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"),
    ):
        client.restore(b"photo")


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of what takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_service_that_hangs_is_not_ready_whatever_a_photo_may_take(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("archive.client.READY_SECONDS", 0.2)
    with Client(silent, answer_seconds=20.0, patience_seconds=0.5) as client:
        begun_seconds = time.monotonic()
        assert not client.is_any_ready()
        with pytest.raises(Unreachable, match="did not answer"):
            client.active_releases()
    assert time.monotonic() - begun_seconds < 10.0


def test_of_two_services_the_one_that_works_does_the_work(scripted: ScriptedServer) -> None:
    with Client("http://127.0.0.1:9", scripted.address) as client:
        for _ in range(5):
            assert client.restore(b"photo").content == b"photo"
    assert len(scripted.seen) == 5


def test_the_key_of_the_environment_is_sent(scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESTORE_API_KEY", "key-1")
    with Client(scripted.address) as client:
        client.restore(b"photo")
    with Client(scripted.address, api_key="key-2") as client:
        client.restore(b"photo")
    assert [headers["Authorization"] for _, headers in scripted.seen] == ["Bearer key-1", "Bearer key-2"]


def test_the_asynchronous_client_is_the_same(scripted: ScriptedServer) -> None:
    async def restore_many() -> list[bytes]:
        async with AsyncClient(scripted.address) as client:
            restored = await asyncio.gather(*(client.restore(bytes([index])) for index in range(10)))
        return [one.content for one in restored]

    scripted.say_first(problem(503, "draining", Retry_After="0"))
    assert asyncio.run(restore_many()) == [bytes([index]) for index in range(10)]


def test_neither_the_client_nor_the_tool_needs_torch() -> None:
    check = "import sys, archive.client, archive.command; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY, check=True)


def test_the_example_of_the_documentation_runs(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    documentation = (REPOSITORY / "docs" / "archive.md").read_text(encoding="utf-8")
    example = re.findall(r"^```python\n(.*?)^```", documentation, re.MULTILINE | re.DOTALL)[0]
    (tmp_path / "old.jpg").write_bytes(encode(scratched_photo(), "JPEG"))
    monkeypatch.chdir(tmp_path)
    exec(compile(example.replace("http://127.0.0.1:8000", address), "example", "exec"), {})
    assert (tmp_path / "new.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert "0001" in capsys.readouterr().out
