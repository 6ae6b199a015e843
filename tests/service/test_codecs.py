"""Photos that cost their decoder its life, over HTTP: they are refused, and nobody else notices."""

import os
import resource
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.codec_pool import CodecPool

from .serving import MakeClient, assert_problem, context_of, encode, grey_photo, scratched_photo

PHOTO = encode(scratched_photo())
MIB = 1024 * 1024


def lost_workers(client: TestClient) -> dict[str, float]:
    samples = (each for metric in context_of(client).metrics.codec_workers_lost.collect() for each in metric.samples)
    return {each.labels["reason"]: each.value for each in samples if each.name.endswith("_total")}


def test_a_photo_that_takes_too_much_memory_is_refused_and_the_next_one_is_restored(make_client: MakeClient) -> None:
    client = make_client(codec_memory_bytes=256 * MIB)
    problem = assert_problem(client.post("/restore", content=encode(grey_photo(6000, 6000))), 422, "photo-unsafe")
    assert "memory" in problem["detail"]
    assert lost_workers(client) == {"memory": 1.0}
    assert client.post("/restore", content=PHOTO).status_code == 200


class SabotagedPool:
    """A pool that calls something else in its workers, the first so many times that a function is to be called."""

    def __init__(self, pool: CodecPool, num_times: int, function_name: str, *call: Any) -> None:
        self.pool = pool
        self.num_times = num_times
        self.function_name = function_name
        self.other_call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pool, name)

    def call(self, timeout_seconds: float, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        if function.__name__ == self.function_name and self.num_times:
            self.num_times -= 1
            return self.pool.call(timeout_seconds, *self.other_call)
        return self.pool.call(timeout_seconds, function, *args, **kwargs)


def sabotage(client: TestClient, num_times: int, function_name: str, *call: Any) -> None:
    codec = context_of(client).queue._small.codec
    object.__setattr__(codec, "pool", SabotagedPool(codec.pool, num_times, function_name, *call))


def kill_workers(client: TestClient, num_kills: int, function_name: str) -> None:
    sabotage(client, num_kills, function_name, signal.raise_signal, signal.SIGKILL)


def test_a_photo_that_takes_too_long_to_decode_is_refused_and_the_next_one_is_restored(make_client: MakeClient) -> None:
    client = make_client(decode_timeout_seconds=1.0)
    sabotage(client, 1, "decode_bounded", time.sleep, 100)
    problem = assert_problem(client.post("/restore", content=PHOTO), 422, "photo-unsafe")
    assert "1 seconds" in problem["detail"]
    assert lost_workers(client) == {"time": 1.0}
    assert client.post("/restore", content=PHOTO).status_code == 200


@pytest.mark.parametrize("function_name", ["count_pixels", "decode_bounded", "encode_photo"])
def test_a_worker_that_is_killed_once_costs_nobody_anything(
    client: TestClient, make_client: MakeClient, function_name: str
) -> None:
    expected = client.post("/restore", content=PHOTO).content
    unlucky = make_client()
    kill_workers(unlucky, 1, function_name)
    answer = unlucky.post("/restore", content=PHOTO)
    assert (answer.status_code, answer.content) == (200, expected)
    assert lost_workers(unlucky) == {"died": 1.0}


def test_a_photo_that_kills_its_worker_twice_is_refused(make_client: MakeClient) -> None:
    client = make_client()
    kill_workers(client, 2, "decode_bounded")
    assert_problem(client.post("/restore", content=PHOTO), 422, "photo-unsafe")
    assert client.post("/restore", content=PHOTO).status_code == 200


def test_an_encoder_that_is_killed_twice_is_the_services_fault_and_not_for_long(make_client: MakeClient) -> None:
    client = make_client()
    kill_workers(client, 2, "encode_photo")
    refused = client.post("/restore", content=PHOTO)
    assert_problem(refused, 503, "codec-unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert client.post("/restore", content=PHOTO).status_code == 200


def test_a_worker_killed_while_many_photos_are_in_the_works_costs_nobody_anything(make_client: MakeClient) -> None:
    client = make_client(codec_processes=2)
    photos = [encode(scratched_photo(200 + index, 300)) for index in range(16)]
    assert client.post("/restore", content=PHOTO).status_code == 200
    with ThreadPoolExecutor(8) as callers:
        answers = [callers.submit(client.post, "/restore", content=photo) for photo in photos]
        answers[0].result()
        os.kill(context_of(client).queue._small.codec.pool.process_ids()[0], signal.SIGKILL)
    assert [answer.result().status_code for answer in answers] == [200] * len(photos)


def test_without_memory_to_share_photos_are_refused_for_a_while(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client()

    def fail(*args: Any) -> int:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(os, "memfd_create", fail)
        refused = client.post("/restore", content=PHOTO)
        assert_problem(refused, 503, "codec-unavailable")
        assert int(refused.headers["retry-after"]) > 0
    assert client.post("/restore", content=PHOTO).status_code == 200


@contextmanager
def files_of_workers_within(client: TestClient, num_bytes: int) -> Iterator[None]:
    """No file that a worker writes, in memory or not, may grow beyond it; the kernel sees to that."""
    queue = context_of(client).queue
    workers = [pid for lane in (queue._small, queue._large) for pid in lane.codec.pool.process_ids()]
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    for pid in workers:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (num_bytes, most))
    try:
        yield
    finally:
        for pid in workers:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, most))


def test_without_room_for_temporary_files_photos_are_refused_for_a_while(make_client: MakeClient) -> None:
    client = make_client()
    photo = encode(scratched_photo(), "JPEG", quality=100)
    assert client.post("/restore", content=photo).status_code == 200
    with files_of_workers_within(client, 10_000):
        refused = client.post("/restore", content=photo)
    assert_problem(refused, 507, "no-room-for-files")
    assert int(refused.headers["retry-after"]) > 0
    assert client.post("/restore", content=photo).status_code == 200
    assert lost_workers(client) == {}, "the same processes go on"


def test_an_untouched_photo_is_not_sent_to_be_encoded(make_client: MakeClient) -> None:
    client = make_client()
    kill_workers(client, 2, "encode_photo")
    photo = encode(grey_photo(), "JPEG")
    assert client.post("/restore", content=photo).content == photo
