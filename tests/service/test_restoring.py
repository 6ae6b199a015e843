import itertools
import math
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from torch import Tensor

from restoration.device import DeviceGenerator

from .serving import MakeClient, assert_problem, context_of, encode, grey_photo, scratched_photo

PHOTO = encode(grey_photo())


class SlowGenerator:
    """The real one, behind a gate: a device so slow cannot be had otherwise."""

    def __init__(self, generator: DeviceGenerator) -> None:
        self.generator = generator
        self.started = threading.Semaphore(0)
        self.gate = threading.Event()
        self.thread_names: set[str] = set()
        self.num_detected: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.generator, name)

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        self.thread_names.add(threading.current_thread().name)
        self.num_detected.append(len(tiles))
        self.started.release()
        assert self.gate.wait(timeout=30)
        return self.generator.detect(tiles)


@contextmanager
def slowed(client: TestClient) -> Iterator[SlowGenerator]:
    releases = context_of(client).releases
    slow = SlowGenerator(releases.restorer().generator)
    releases.active = replace(releases.restorer(), generator=slow)  # type: ignore[arg-type]
    try:
        yield slow
    finally:
        slow.gate.set()


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as callers:
        yield callers


def post(callers: ThreadPoolExecutor, client: TestClient, photo: bytes = PHOTO) -> Future[Any]:
    return callers.submit(client.post, "/restore", content=photo)


def wait_for_jobs(client: TestClient, num_jobs: int) -> None:
    for _ in range(500):
        if context_of(client).queue.num_jobs == num_jobs:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{context_of(client).queue.num_jobs} jobs, expected {num_jobs}")


def wait_for_tiles(client: TestClient, num_tiles: int) -> None:
    for _ in range(500):
        if context_of(client).queue.batcher.count_waiting() >= num_tiles:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{context_of(client).queue.batcher.count_waiting()} tiles wait, expected {num_tiles}")


def test_health_answers_while_a_photo_is_being_restored(make_client: MakeClient, callers: ThreadPoolExecutor) -> None:
    client = make_client()
    with slowed(client) as slow:
        photo = post(callers, client)
        assert slow.started.acquire(timeout=10)
        assert client.get("/livez").json() == {"status": "alive"}
        assert client.get("/readyz").status_code == 200
        assert not photo.done()
    assert photo.result().status_code == 200


def test_one_thread_has_the_device_and_photos_share_its_batches(
    make_client: MakeClient, callers: ThreadPoolExecutor
) -> None:
    client = make_client(device_threads=1, small_photos=6)
    with slowed(client) as slow:
        first = post(callers, client)
        assert slow.started.acquire(timeout=10)
        others = [post(callers, client) for _ in range(5)]
        wait_for_tiles(client, 5)
        slow.gate.set()
        assert all(answer.result().content == PHOTO for answer in (first, *others))
    assert slow.thread_names == {"device"}
    assert slow.num_detected == [1, 5]


@pytest.mark.parametrize("device_threads", [1, 3])
def test_answers_are_the_same_alone_and_in_company(
    make_client: MakeClient, callers: ThreadPoolExecutor, device_threads: int
) -> None:
    client = make_client(device_threads=device_threads, small_photos=8)
    sizes = [(96, 128), (300, 400), (600, 500), (257, 255), (64, 900)] * 3
    photos = [encode(scratched_photo(*size)) for size in sizes]
    alone = [client.post("/restore", content=photo).content for photo in photos]
    together = [post(callers, client, photo) for photo in photos]
    assert [answer.result().content for answer in together] == alone


def test_a_small_photo_overtakes_a_large_one(make_client: MakeClient, callers: ThreadPoolExecutor) -> None:
    client = make_client(device_threads=1)
    with slowed(client) as slow:
        large = post(callers, client, encode(grey_photo(2100, 2100)))
        assert slow.started.acquire(timeout=10)
        small = post(callers, client)
        wait_for_tiles(client, 1)
        slow.gate.set()
        assert small.result().status_code == 200
        assert not large.done()
    assert large.result().status_code == 200


def test_small_photos_do_not_wait_for_room_that_large_ones_take(
    make_client: MakeClient, callers: ThreadPoolExecutor
) -> None:
    scan = encode(grey_photo(2100, 2100))
    client = make_client(max_pixels=5_000_000, max_decoded_pixels=5_000_000, device_threads=1)
    with slowed(client) as slow:
        scans = [post(callers, client, scan) for _ in range(3)]
        assert slow.started.acquire(timeout=10)
        wait_for_jobs(client, 3)
        assert context_of(client).queue.batcher.count_waiting() <= 1  # the others are not even decoded
        small = post(callers, client)
        wait_for_tiles(client, 1)
        slow.gate.set()
        assert small.result().status_code == 200
        assert not any(scan.done() for scan in scans[1:])
    assert all(scan.result().status_code == 200 for scan in scans)


def test_beyond_the_limit_of_tiles_a_scan_is_refused_with_an_honest_time(
    make_client: MakeClient, callers: ThreadPoolExecutor
) -> None:
    scan = encode(grey_photo(2100, 2100))
    client = make_client(max_queued_tiles=1000)
    with slowed(client) as slow:
        first = post(callers, client, scan)
        assert slow.started.acquire(timeout=10)
        queue = context_of(client).queue
        queue.batcher.tiles_per_second = 10.0
        refused = client.post("/restore", content=scan)
        assert_problem(refused, 503, "queue-full")
        assert int(refused.headers["retry-after"]) == math.ceil(queue.num_tiles_left / 10.0)
    assert first.result().status_code == 200


def test_a_full_queue_refuses_the_next_photo_and_serves_the_others(
    make_client: MakeClient, callers: ThreadPoolExecutor
) -> None:
    client = make_client(max_queued_requests=2)
    with slowed(client):
        waiting = [post(callers, client) for _ in range(2)]
        wait_for_jobs(client, 2)
        refused = client.post("/restore", content=PHOTO)
        assert_problem(refused, 503, "queue-full")
        assert int(refused.headers["retry-after"]) > 0
    assert [answer.result().status_code for answer in waiting] == [200, 200]


def test_past_the_deadline_the_client_is_told_and_the_service_goes_on(
    make_client: MakeClient, callers: ThreadPoolExecutor
) -> None:
    client = make_client(deadline_seconds=0.2)
    with slowed(client):
        running, queued = post(callers, client), post(callers, client)
        assert_problem(running.result(), 504, "deadline-exceeded")
        assert_problem(queued.result(), 504, "deadline-exceeded")
    wait_for_jobs(client, 0)
    assert client.post("/restore", content=PHOTO).status_code == 200


def test_a_clock_that_jumps_costs_nobody_anything(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client()
    jumps = itertools.cycle((0.0, 4e9))
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    answer = client.post("/restore", content=encode(scratched_photo()))
    assert answer.status_code == 200
    durations = [float(found) for found in re.findall(r"dur=([^,]+)", answer.headers["server-timing"])]
    assert all(0 <= milliseconds < 60_000 for milliseconds in durations)


def test_a_draining_service_is_not_ready_takes_nothing_new_and_finishes_what_it_has(
    make_client: MakeClient, callers: ThreadPoolExecutor
) -> None:
    client = make_client()
    with slowed(client) as slow:
        photo = post(callers, client)
        assert slow.started.acquire(timeout=10)
        context_of(client).queue.drain()
        assert_problem(client.get("/readyz"), 503, "draining")
        refused = client.post("/restore", content=PHOTO)
        assert_problem(refused, 503, "draining")
        assert int(refused.headers["retry-after"]) > 0
        assert client.get("/livez").status_code == 200
    assert photo.result().status_code == 200


def test_photos_that_are_abandoned_are_answered_at_once_and_nothing_more_is_computed_for_them(
    make_client: MakeClient, callers: ThreadPoolExecutor
) -> None:
    client = make_client(device_threads=1)
    assert client.portal
    with slowed(client) as slow:
        running, waiting = post(callers, client), post(callers, client)
        assert slow.started.acquire(timeout=10)
        wait_for_tiles(client, 1)
        client.portal.call(context_of(client).queue.abandon)
        for photo in (running, waiting):
            answer = photo.result(timeout=10)  # while the device still computes
            assert_problem(answer, 503, "draining")
            assert int(answer.headers["retry-after"]) > 0
    wait_for_jobs(client, 0)
    assert slow.num_detected == [1]
