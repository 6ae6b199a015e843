import os
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog
import torch
from fastapi.testclient import TestClient
from torch import Tensor

from restoration.release import Release
from restoration.remote_store import RemoteStore
from restoration.restorer import Restoration, Restorer, restore_photo
from restoration.stores import FolderStore
from service.releases import Releases

from ..s3 import Cable, cable_to_s3, empty_bucket, needs_s3
from .key_files import add, bearer
from .serving import (
    MakeClient,
    assert_problem,
    context_of,
    encode,
    grey_photo,
    publish,
    scratched_photo,
    wait_until_ready,
)

PHOTO = encode(grey_photo())


def wait_until_refused(client: TestClient, version: str) -> str:
    for _ in range(1000):
        states = {release["version"]: release for release in client.get("/models").json()["releases"]}
        if states[version]["state"] == "refused":
            reason: str = states[version]["reason"]
            return reason
    raise AssertionError(f"release {version} was never refused: {states}")


@pytest.fixture
def own_store(store: Path, tmp_path: Path) -> Path:
    """A copy of the store that a test may damage."""
    return Path(shutil.copytree(store, tmp_path / "store"))


def publish_aside(store: Path) -> Path:
    """The next release, to be moved into the store when a test wants it there."""
    version = publish(store)
    return (store / version).rename(store.parent / version)


def test_the_models_name_the_active_release(client: TestClient) -> None:
    assert client.get("/models").json() == {
        "active": "0001",
        "reason": None,
        "store_problem": None,
        "releases": [{"version": "0001", "state": "active", "reason": None}],
    }
    assert client.get("/readyz").json() == {"status": "ready", "release": "0001"}


@pytest.mark.parametrize("exists", [True, False], ids=["empty", "missing"])
def test_without_a_release_the_service_lives_and_says_why_it_is_not_ready(
    make_client: MakeClient, tmp_path: Path, exists: bool
) -> None:
    client = make_client(model_store=tmp_path if exists else tmp_path / "nowhere", ready=False)
    assert client.get("/livez").status_code == 200
    while "being loaded" in client.get("/readyz").text:
        pass
    assert "holds no release" in assert_problem(client.get("/readyz"), 503, "not-ready")["detail"]
    refused = client.post("/restore", content=PHOTO)
    assert_problem(refused, 503, "not-ready")
    assert int(refused.headers["retry-after"]) > 0
    models = client.get("/models").json()
    assert (models["active"], models["releases"]) == (None, [])
    assert "holds no release" in models["reason"]


def test_the_first_release_is_picked_up_when_it_is_published(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(model_store=tmp_path, store_poll_seconds=0.05, ready=False)
    assert client.get("/readyz").status_code == 503
    publish(tmp_path)
    wait_until_ready(client)
    assert client.post("/restore", content=PHOTO).status_code == 200


def test_a_damaged_newest_release_is_refused_and_the_one_before_it_is_served(
    make_client: MakeClient, own_store: Path
) -> None:
    newest = publish(own_store)
    with (own_store / newest / "generator.safetensors").open("r+b") as weights:
        weights.seek(-1, 2)
        weights.write(b"\x55")
    client = make_client(model_store=own_store)
    models = client.get("/models").json()
    assert models["active"] == "0001"
    assert [release["state"] for release in models["releases"]] == ["refused", "active"]
    assert "sha256" in models["releases"][0]["reason"]
    wait_for_value(lambda: num_refused(client), 1.0)


def test_releases_count_as_refused_until_they_are_gone_or_passed_over(make_client: MakeClient, own_store: Path) -> None:
    client = make_client(model_store=own_store, store_poll_seconds=0.05)
    (own_store / "0002").mkdir()
    wait_for_value(lambda: num_refused(client), 1.0)
    (own_store / "0003").mkdir()
    wait_for_value(lambda: num_refused(client), 2.0)
    (own_store / "0003").rmdir()
    wait_for_value(lambda: num_refused(client), 1.0)
    publish(own_store)
    wait_for_value(lambda: num_refused(client), 0.0)


def num_refused(client: TestClient) -> float:
    return next(iter(context_of(client).metrics.releases_refused.collect())).samples[0].value


def test_a_refused_release_is_tried_again_when_it_was_repaired(make_client: MakeClient, own_store: Path) -> None:
    manifest = own_store / "0001" / "manifest.json"
    intact = manifest.read_bytes()
    manifest.write_bytes(intact[:100])
    client = make_client(model_store=own_store, store_poll_seconds=0.05, ready=False)
    assert "manifest.json" in wait_until_refused(client, "0001")
    assert "0001" in assert_problem(client.get("/readyz"), 503, "not-ready")["detail"]
    manifest.write_bytes(intact)
    wait_until_ready(client)


def test_a_load_that_failed_through_no_fault_of_the_release_is_tried_again(
    make_client: MakeClient, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, failures = Restorer.load, []

    def fail_twice(release: Release, **options: object) -> Restorer:
        if len(failures) < 2:
            failures.append(release.version)
            raise RuntimeError("out of memory")
        return load(release, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Restorer, "load", fail_twice)
    client = make_client(model_store=own_store, store_poll_seconds=0.05)
    assert failures == ["0001", "0001"]
    assert client.get("/models").json()["active"] == "0001"


def test_a_load_that_takes_the_devices_memory_leaves_batches_as_they_were(
    make_client: MakeClient, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = publish_aside(own_store)
    client = make_client(model_store=own_store, store_poll_seconds=0.05)
    generator = context_of(client).releases.restorer().generator
    sizes: list[int] = []
    detect = generator._generator.detect

    def hold_one_tile(tiles: Tensor) -> Tensor:
        if len(tiles) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return detect(tiles)

    def fill_the_memory(release: Release, **options: object) -> Restorer:
        monkeypatch.setattr(generator._generator, "detect", hold_one_tile)
        assert client.post("/restore", content=encode(scratched_photo(600, 500))).status_code == 200
        sizes.append(generator.batch_size)
        monkeypatch.undo()
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Restorer, "load", fill_the_memory)
    newer.rename(own_store / "0002")
    wait_until_active(client, "0002")
    assert sizes == [1]
    assert generator.batch_size == 8
    assert reloads(client) == {"activated": 2.0, "refused": 1.0}


def test_a_device_that_fails_while_a_release_is_loaded_turns_the_service_red(
    make_client: MakeClient, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = publish_aside(own_store)
    client = make_client(model_store=own_store, store_poll_seconds=0.05)

    def fail(release: Release, **options: object) -> Restorer:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Restorer, "load", fail)
    newer.rename(own_store / "0002")
    wait_until_refused(client, "0002")
    while client.get("/livez").status_code == 200:
        time.sleep(0.01)
    assert "illegal memory access" in assert_problem(client.get("/livez"), 503, "device-broken")["detail"]
    assert_problem(client.post("/restore", content=PHOTO), 503, "device-broken")


def test_a_release_that_could_not_be_read_is_tried_again(
    make_client: MakeClient, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions are mended, and a disk recovers, without a file being changed."""
    read, is_mended = Path.read_bytes, threading.Event()

    def fail(self: Path) -> bytes:
        if self.name.endswith(".safetensors") and not is_mended.is_set():
            raise PermissionError(13, "Permission denied")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", fail)
    client = make_client(model_store=own_store, store_poll_seconds=0.05, ready=False)
    wait_until_refused(client, "0001")
    is_mended.set()
    wait_until_ready(client)


def test_a_store_that_cannot_be_read_any_more_is_named(
    make_client: MakeClient, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = publish(own_store)
    (own_store / refused / "generator.safetensors").write_bytes(b"no weights")
    client = make_client(model_store=own_store, store_poll_seconds=3600)

    def fail(self: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "iterdir", fail)
    models = client.get("/models").json()
    assert models["store_problem"] == f"the model store {own_store} cannot be read: Input/output error"
    assert (models["active"], models["reason"]) == ("0001", None)
    assert [(each["version"], each["state"]) for each in models["releases"]] == [
        (refused, "refused"),
        ("0001", "active"),
    ]
    assert client.post("/restore", content=PHOTO).status_code == 200


def test_a_release_that_cannot_be_read_is_logged_and_counted_once_though_tried_again(
    make_client: MakeClient, own_store: Path
) -> None:
    (own_store / "0002").mkdir()
    manifest = own_store / "0002" / "manifest.json"
    manifest.symlink_to(manifest)
    with structlog.testing.capture_logs() as lines:
        client = make_client(model_store=own_store, store_poll_seconds=0.02)
        time.sleep(0.5)
        assert reloads(client)["refused"] == 1.0
        manifest.unlink()
        manifest.write_bytes(b"{}")
        wait_for_value(lambda: reloads(client)["refused"], 2.0)
    first, second = [line["reason"] for line in lines if line["event"] == "release refused"]
    assert f"Too many levels of symbolic links: '{manifest}'); check its permissions" in first
    assert "format version" in second


def test_copies_that_cannot_be_written_are_named_once(make_client: MakeClient, own_store: Path, tmp_path: Path) -> None:
    (tmp_path / "copies").write_text("no folder")
    with structlog.testing.capture_logs() as lines:
        client = make_client(
            model_store=own_store.as_uri(), model_copies=tmp_path / "copies", store_poll_seconds=0.02, ready=False
        )
        wait_for_value(lambda: reloads(client)["refused"], 1.0)
        time.sleep(0.5)
        assert reloads(client)["refused"] == 1.0
    (line,) = [line for line in lines if line["event"] == "release refused"]
    assert f" can be kept in {tmp_path}/copies/" in line["reason"]
    assert "name another folder" in line["reason"]


def test_a_named_pipe_for_a_manifest_is_refused(make_client: MakeClient, own_store: Path) -> None:
    """Opening it would wait for a writer, for ever."""
    (own_store / "0002").mkdir()
    os.mkfifo(own_store / "0002" / "manifest.json")
    client = make_client(model_store=own_store)
    assert client.get("/models").json()["releases"][0] == {
        "version": "0002",
        "state": "refused",
        "reason": "release 0002: manifest.json is no regular file; publish it again",
    }


def test_a_store_that_vanishes_is_told_of_until_it_is_back(make_client: MakeClient, own_store: Path) -> None:
    client = make_client(model_store=own_store, store_poll_seconds=0.05)
    assert (client.get("/models").json()["store_problem"], store_up(client)) == (None, 1.0)
    own_store.rename(own_store.parent / "unmounted")
    assert (
        wait_for(client, "store_problem", bool)
        == f"the model store {own_store} is gone; mount it again, or bring it back"
    )
    wait_for_value(lambda: store_up(client), 0.0)
    assert client.post("/restore", content=PHOTO).status_code == 200
    (own_store.parent / "unmounted").rename(own_store)
    wait_for(client, "store_problem", lambda problem: problem is None)
    wait_for_value(lambda: store_up(client), 1.0)


def wait_for_value(ask: Callable[[], float], expected: float) -> None:
    give_up_at = time.monotonic() + 30.0
    while (value := ask()) != expected:
        assert time.monotonic() < give_up_at, value
        time.sleep(0.02)


def wait_until_active(client: TestClient, version: str) -> None:
    give_up_at = time.monotonic() + 30.0
    while client.get("/models").json()["active"] != version:
        assert time.monotonic() < give_up_at, client.get("/models").text
        time.sleep(0.02)


def reloads(client: TestClient) -> dict[str, float]:
    samples = (sample for metric in context_of(client).metrics.reloads.collect() for sample in metric.samples)
    return {sample.labels["result"]: sample.value for sample in samples if sample.name.endswith("_total")}


def test_a_newer_release_takes_over_without_one_failed_request(make_client: MakeClient, own_store: Path) -> None:
    client = make_client(model_store=own_store, store_poll_seconds=0.05)
    answers: list[tuple[int, str]] = []
    has_swapped = threading.Event()

    def wait_for_answers(num_more: int) -> None:
        num = len(answers) + num_more
        while len(answers) < num:
            time.sleep(0.01)

    def keep_asking() -> None:
        while not has_swapped.is_set():
            answer = client.post("/restore", content=encode(scratched_photo()))
            answers.append((answer.status_code, answer.headers["x-model-version"]))

    with ThreadPoolExecutor(3) as clients:
        asking = [clients.submit(keep_asking) for _ in range(3)]
        wait_for_answers(10)
        for version in ("0002", "0003"):
            assert publish(own_store) == version
            wait_until_active(client, version)
            wait_for_answers(10)
        has_swapped.set()
        for each in asking:
            each.result()
    assert {status for status, _ in answers} == {200}
    assert {version for _, version in answers} == {"0001", "0002", "0003"}
    assert [release["state"] for release in client.get("/models").json()["releases"]] == ["active"] + ["present"] * 2
    assert reloads(client) == {"activated": 3.0, "refused": 0.0}
    assert 'restore_model_info{sha256="' in client.get("/metrics").text
    assert 'version="0002"' not in client.get("/metrics").text


def test_a_request_finishes_with_the_release_that_it_began_with(
    make_client: MakeClient, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, may_go_on = threading.Event(), threading.Event()

    def slowly(*args: Any) -> Restoration:
        has_begun.set()
        assert may_go_on.wait(30)
        return restore_photo(*args)

    monkeypatch.setattr("service.restoring.restore_photo", slowly)
    client = make_client(model_store=own_store, store_poll_seconds=0.05)
    with ThreadPoolExecutor(1) as clients:
        asking = clients.submit(client.post, "/restore", content=encode(scratched_photo()))
        assert has_begun.wait(30)
        publish(own_store)
        wait_until_active(client, "0002")
        may_go_on.set()
        answer = asking.result()
    assert (answer.status_code, answer.headers["x-model-version"]) == (200, "0001")


def test_a_bad_newer_release_is_refused_and_the_old_one_stays(make_client: MakeClient, own_store: Path) -> None:
    client = make_client(model_store=own_store, store_poll_seconds=0.05)
    shutil.copytree(own_store / "0001", own_store / ".0002")
    (own_store / ".0002" / "generator.safetensors").write_bytes(b"not weights")
    (own_store / ".0002").rename(own_store / "0002")
    while reloads(client).get("refused", 0.0) == 0.0:
        time.sleep(0.02)
    models = client.get("/models").json()
    assert (models["active"], models["releases"][0]["state"]) == ("0001", "refused")
    assert client.post("/restore", content=PHOTO).headers["x-model-version"] == "0001"
    time.sleep(0.3)
    assert reloads(client)["refused"] == 1.0  # it is not tried again while it stays as it is


def test_the_active_release_outlives_its_files(make_client: MakeClient, own_store: Path) -> None:
    """An older one must not take over because a folder is gone."""
    newest = publish(own_store)
    client = make_client(model_store=own_store, store_poll_seconds=0.05)
    shutil.rmtree(own_store / newest)
    time.sleep(0.3)
    assert client.post("/restore", content=PHOTO).headers["x-model-version"] == newest


def test_a_pinned_release_is_served_though_a_newer_one_is_there(make_client: MakeClient, own_store: Path) -> None:
    newest = publish(own_store)
    client = make_client(model_store=own_store, model_version="0001")
    models = client.get("/models").json()
    assert models["active"] == "0001"
    assert models["releases"][0] == {"version": newest, "state": "present", "reason": None}


def test_a_pinned_release_that_is_missing_is_named(make_client: MakeClient, own_store: Path) -> None:
    client = make_client(model_store=own_store, model_version="0099", ready=False)
    while "being loaded" in client.get("/readyz").text:
        pass
    assert "release 0099 is not in" in client.get("/readyz").json()["detail"]


def test_why_no_release_is_served_is_logged_once(make_client: MakeClient, own_store: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        client = make_client(model_store=own_store, model_version="0002", store_poll_seconds=0.02, ready=False)
        wait_for(client, "reason", lambda reason: "release 0002 is not in" in reason)
        time.sleep(0.3)
    (line,) = [line for line in lines if line["event"] == "no release can be served"]
    assert line["log_level"] == "warning"
    assert f"release 0002 is not in {own_store}" in line["reason"]


class Operator:
    """An administrator with a client of a service that looks at its store all the time."""

    def __init__(self, make_client: MakeClient, store: Path, **settings: Any) -> None:
        keys_file = store.parent / "keys.toml"
        self.key = bearer(add(keys_file, "operator", "admin restore"))
        self.client = make_client(model_store=store, store_poll_seconds=0.05, api_keys_file=keys_file, **settings)
        self.client.headers = self.key

    def activate(self, version: str) -> Any:
        return self.client.post(f"/models/{version}/activate")

    def serves(self) -> str:
        return str(self.client.post("/restore", content=PHOTO).headers["x-model-version"])

    def states(self) -> dict[str, str]:
        return {release["version"]: release["state"] for release in self.client.get("/models").json()["releases"]}

    def wait_for_a_look(self) -> None:
        """Until the store was looked at twice: the first look may have begun before."""
        looks = Looks(context_of(self.client).releases)
        for _ in range(2):
            assert looks.done.acquire(timeout=30)
        looks.stop()


class Looks:
    def __init__(self, releases: Releases) -> None:
        self.done = threading.Semaphore(0)
        self.releases, self.look = releases, releases.load_newest
        releases.load_newest = self.look_and_tell  # type: ignore[method-assign]

    def look_and_tell(self) -> None:
        self.look()
        self.done.release()

    def stop(self) -> None:
        self.releases.load_newest = self.look  # type: ignore[method-assign]


def test_an_administrator_moves_back_and_forward(make_client: MakeClient, own_store: Path) -> None:
    publish(own_store)
    operator = Operator(make_client, own_store)
    assert operator.serves() == "0002"
    assert operator.activate("0001").json()["active"] == "0001"
    operator.wait_for_a_look()
    assert operator.serves() == "0001"
    assert operator.states() == {"0002": "passed-over", "0001": "active"}
    assert operator.activate("0002").json()["active"] == "0002"
    assert operator.serves() == "0002"
    assert operator.states() == {"0002": "active", "0001": "present"}


def test_a_hundred_reloads_leave_memory_as_it_was(make_client: MakeClient, own_store: Path) -> None:
    publish(own_store)
    operator = Operator(make_client, own_store)
    held_mib = []
    for index in range(100):
        assert operator.activate(("0001", "0002")[index % 2]).status_code == 200
        held_mib.append(resident_mib())
    assert operator.serves() == "0002"
    assert held_mib[-1] - held_mib[30] < 20


def resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / 2**20


def test_a_release_published_after_an_administrator_moved_back_takes_over(
    make_client: MakeClient, own_store: Path
) -> None:
    publish(own_store)
    operator = Operator(make_client, own_store)
    operator.activate("0001")
    operator.wait_for_a_look()
    assert publish(own_store) == "0003"
    wait_until_active(operator.client, "0003")
    assert operator.states() == {"0003": "active", "0002": "present", "0001": "present"}


def test_activating_the_active_release_passes_newer_ones_over(make_client: MakeClient, own_store: Path) -> None:
    operator = Operator(make_client, own_store)
    assert operator.activate("0001").status_code == 200
    assert reloads(operator.client) == {"activated": 1.0, "refused": 0.0}, "it is not loaded again"


def test_a_failed_activation_leaves_the_active_release_serving(make_client: MakeClient, own_store: Path) -> None:
    shutil.copytree(own_store / "0001", own_store / "0002")
    (own_store / "0002" / "generator.safetensors").write_bytes(b"not weights")
    operator = Operator(make_client, own_store)
    problem = assert_problem(operator.activate("0002"), 409, "release-refused")
    assert "0002" in problem["detail"]
    assert operator.serves() == "0001"
    assert operator.states() == {"0002": "refused", "0001": "active"}
    assert publish(own_store) == "0003"
    wait_until_active(operator.client, "0003")


def test_a_refused_release_is_tried_again_when_an_administrator_asks(
    make_client: MakeClient, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = Operator(make_client, own_store)
    publish(own_store)
    monkeypatch.setattr("restoration.stores._fingerprint_of", lambda path: ())  # nothing seems to have changed
    weights = own_store / "0002" / "generator.safetensors"
    intact = weights.read_bytes()
    weights.write_bytes(b"not weights")
    operator.activate("0001")
    assert_problem(operator.activate("0002"), 409, "release-refused")
    weights.write_bytes(intact)
    assert operator.activate("0002").json()["active"] == "0002"


def test_a_release_that_is_not_there_cannot_be_activated(make_client: MakeClient, own_store: Path) -> None:
    operator = Operator(make_client, own_store)
    problem = assert_problem(operator.activate("0099"), 404, "no-release")
    assert problem["detail"] == "the store holds no release 0099; it holds 0001"


@pytest.mark.parametrize("version", ["1", "newest", "0001x", "%2e%2e", "0" * 13])
def test_what_is_no_number_of_a_release_cannot_be_activated(
    make_client: MakeClient, own_store: Path, version: str
) -> None:
    operator = Operator(make_client, own_store)
    problem = assert_problem(operator.activate(version), 422, "invalid-parameter")
    assert [error["parameter"] for error in problem["errors"]] == ["version"]


def test_a_pinned_release_stays_whatever_an_administrator_asks_for(make_client: MakeClient, own_store: Path) -> None:
    publish(own_store)
    operator = Operator(make_client, own_store, model_version="0001")
    problem = assert_problem(operator.activate("0002"), 409, "release-pinned")
    assert "RESTORE_MODEL_VERSION=0001" in problem["detail"]
    assert operator.activate("0001").status_code == 200
    assert operator.serves() == "0001"


# --- a store elsewhere ------------------------------------------------------------------------------------------------

URL = "s3://archive/releases"


@pytest.fixture
def cable() -> Iterator[Cable]:
    with cable_to_s3() as cable:
        empty_bucket(cable, "archive")
        yield cable


def upload(version: str, store: Path) -> None:
    RemoteStore(URL).upload(FolderStore(store).read(version))


def store_up(client: TestClient) -> float:
    return next(iter(context_of(client).metrics.store_up.collect())).samples[0].value


def wait_for(client: TestClient, key: str, has: Callable[[Any], bool]) -> Any:
    give_up_at = time.monotonic() + 60.0
    while not has(value := client.get("/models").json()[key]):
        assert time.monotonic() < give_up_at, value
        time.sleep(0.05)
    return value


@needs_s3
def test_a_store_that_fails_in_mid_download_leaves_the_old_release_serving_and_is_shown(
    make_client: MakeClient, own_store: Path, cable: Cable, tmp_path: Path
) -> None:
    upload("0001", own_store)
    client = make_client(model_store=URL, model_copies=tmp_path / "copies", store_poll_seconds=0.05)
    assert client.post("/restore", content=PHOTO).headers["x-model-version"] == "0001"
    assert (client.get("/models").json()["store_problem"], store_up(client)) == (None, 1.0)
    cable.break_when_asked_for(b"/0002/generator.safetensors")
    with cable.bypassed():
        upload(publish(own_store), own_store)
    releases = wait_for(client, "releases", lambda releases: releases[0]["state"] == "refused")
    assert "could not give 0002/generator.safetensors" in releases[0]["reason"]
    assert reloads(client)["refused"] >= 1.0
    assert "could not be listed" in wait_for(client, "store_problem", bool)
    assert store_up(client) == 0.0
    assert client.post("/restore", content=PHOTO).headers["x-model-version"] == "0001"
    cable.mend()
    wait_until_active(client, "0002")
    wait_for(client, "store_problem", lambda problem: problem is None)


@needs_s3
def test_a_release_whose_files_disagree_with_its_manifest_is_refused_and_the_one_before_it_is_served(
    make_client: MakeClient, own_store: Path, cable: Cable, tmp_path: Path
) -> None:
    upload("0001", own_store)
    upload(publish(own_store), own_store)
    RemoteStore(URL)._files.pipe_file("archive/releases/0002/README.md", b"another card")
    client = make_client(model_store=URL, model_copies=tmp_path / "copies")
    models = client.get("/models").json()
    assert (models["active"], [release["state"] for release in models["releases"]]) == ("0001", ["refused", "active"])
    assert "README.md has 12 bytes in s3://archive/releases" in models["releases"][0]["reason"]
