"""The service on a Ray cluster of several nodes: the same contract, more replicas when there is more to do, another
release without one failed request. Tests of the contract that are imported here run against the cluster's `client`."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ..ray_cluster import RayCluster
from .serving import encode, grey_photo, publish, scratched_photo
from .test_etags import test_a_raw_body_has_the_tag_of_the_form, test_a_tag_of_other_options_does_not_count  # noqa: F401
from .test_refusals import (  # noqa: F401
    test_a_bad_query_is_refused_by_name,
    test_a_damage_map_in_another_format_is_refused,
    test_a_wrong_method_is_a_problem_that_names_the_right_one,
    test_an_unknown_path_is_a_problem,
    test_another_release_is_refused_with_the_active_one_named,
)
from .test_restore import (  # noqa: F401
    test_a_form_upload_comes_back_restored,
    test_a_raw_body_gives_the_same_bytes_as_a_form_whatever_type_it_claims,
    test_all_is_a_form_with_the_photo_the_map_and_what_is_known_of_them,
    test_an_undamaged_photo_comes_back_byte_for_byte,
    test_damage_is_restored_where_the_mask_says_so_and_protected_pixels_stay,
    test_the_answer_has_the_format_and_size_of_the_photo,
    test_the_headers_say_who_restored_and_how_long_it_took,
)

pytest.importorskip("ray", reason="the extra `ray` is not installed")

import ray
from ray import serve

from restoration.errors import ReleaseInvalid
from service.cluster import APPLICATION, deploy, main, stop
from service.cluster_settings import ClusterSettings
from service.settings import Settings


@pytest.fixture(scope="module")
def releases(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of this module's own, with release 0001."""
    releases = tmp_path_factory.mktemp("cluster") / "releases"
    shutil.copytree(store, releases)
    return releases


@pytest.fixture(scope="module")
def settings(releases: Path) -> Settings:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return Settings(model_store=releases, codec_processes=1, port=port)


@pytest.fixture(scope="module")
def spread(cluster: RayCluster) -> ClusterSettings:
    return ClusterSettings(
        address=cluster.address, max_replicas=2, requests_per_replica=2, proxies="HeadOnly", upscale_delay_seconds=0.5
    )


@pytest.fixture(scope="module")
def client(settings: Settings, spread: ClusterSettings) -> Iterator[httpx.Client]:
    """In the place of the tests' usual one."""
    assert deploy(settings, spread) == "0001"
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{settings.port}", timeout=120) as client:
            yield client
    finally:
        stop(spread)
        ray.shutdown()


@contextmanager
def requests_go_on(client: httpx.Client, num_callers: int) -> Iterator[list[httpx.Response]]:
    """Photos are sent and sent again; yields the answers so far."""
    answers: list[httpx.Response] = []
    is_enough = threading.Event()
    photo = encode(scratched_photo(300, 300))

    def send() -> None:
        while not is_enough.is_set():
            answers.append(client.post("/restore", content=photo))

    callers = [threading.Thread(target=send) for _ in range(num_callers)]
    for caller in callers:
        caller.start()
    try:
        yield answers
    finally:
        is_enough.set()
        for caller in callers:
            caller.join()


def num_replicas() -> int:
    return serve.status().applications[APPLICATION].deployments["Replica"].replica_states.get("RUNNING", 0)


def wait_for(condition, what: str, timeout_seconds: float = 120) -> None:
    give_up_at = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < give_up_at, what
        time.sleep(0.1)


def test_a_wrong_setting_of_the_cluster_is_named_by_its_own_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RESTORE_CLUSTER_MAX_REPLICAS", "abc")
    assert main([]) == 2
    assert "cannot start: RESTORE_CLUSTER_MAX_REPLICAS=abc: Input should be a valid integer" in capsys.readouterr().err


def test_an_answer_has_one_id_the_callers_where_there_is_one(client: httpx.Client) -> None:
    named = client.post("/restore", content=encode(grey_photo()), headers={"X-Request-ID": "box-1.photo-2"})
    assert named.headers.get_list("x-request-id") == ["box-1.photo-2"]
    assert len(client.get("/livez").headers.get_list("x-request-id")) == 1


def test_replicas_are_added_when_there_is_more_to_do(client: httpx.Client) -> None:
    assert num_replicas() == 1
    with requests_go_on(client, 8) as answers:
        wait_for(lambda: num_replicas() == 2, "no second replica")
    assert {answer.status_code for answer in answers} == {200}


def test_a_release_that_does_not_load_changes_nothing(
    client: httpx.Client, settings: Settings, spread: ClusterSettings, releases: Path
) -> None:
    assert publish(releases) == "0002"
    (releases / "0002" / "generator.safetensors").write_bytes(b"no weights")
    with pytest.raises(ReleaseInvalid, match="0002"):
        deploy(settings.model_copy(update={"model_version": "0002"}), spread)
    assert deploy_keeps("0001", client)


def deploy_keeps(release: str, client: httpx.Client) -> bool:
    return client.post("/restore", content=encode(grey_photo())).headers["x-model-version"] == release


def test_the_next_release_is_served_without_one_failed_request(
    client: httpx.Client, settings: Settings, spread: ClusterSettings, releases: Path
) -> None:
    version = publish(releases)
    with requests_go_on(client, 2) as answers:
        assert deploy(settings, spread) == version
        wait_for(lambda: deploy_keeps(version, client), "the old release is still served")
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-model-version"] for answer in answers} <= {"0001", version}
