import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient

from restoration.photo import Photo, decode_photo
from restoration.release import Release
from restoration.restorer import Restoration, RestoreOptions, Restorer

from .serving import MakeClient, assert_problem, context_of, encode, grey_photo

PHOTO = encode(grey_photo())


class SlowRestorer:
    """The real one, behind a gate: a device so slow cannot be had otherwise."""

    def __init__(self, restorer: Restorer) -> None:
        self.restorer = restorer
        self.release: Release = restorer.release
        self.started = threading.Semaphore(0)
        self.gate = threading.Event()
        self.thread_names: set[str] = set()

    def restore(self, photo: Photo, options: RestoreOptions) -> Restoration:
        self.thread_names.add(threading.current_thread().name)
        self.started.release()
        assert self.gate.wait(timeout=30)
        return self.restorer.restore(photo, options)


@contextmanager
def slowed(client: TestClient) -> Iterator[SlowRestorer]:
    releases = context_of(client).releases
    slow = SlowRestorer(releases.restorer())
    releases.active = slow  # type: ignore[assignment]
    try:
        yield slow
    finally:
        slow.gate.set()


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as callers:
        yield callers


def post(callers: ThreadPoolExecutor, client: TestClient) -> Future[Any]:
    return callers.submit(client.post, "/restore", content=PHOTO)


def wait_for_jobs(client: TestClient, num_jobs: int) -> None:
    for _ in range(500):
        if context_of(client).queue.num_jobs == num_jobs:
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{context_of(client).queue.num_jobs} jobs, expected {num_jobs}")


def test_health_answers_while_a_photo_is_being_restored(make_client: MakeClient, callers: ThreadPoolExecutor) -> None:
    client = make_client()
    with slowed(client) as slow:
        photo = post(callers, client)
        assert slow.started.acquire(timeout=10)
        assert client.get("/livez").json() == {"status": "alive"}
        assert client.get("/readyz").status_code == 200
        assert not photo.done()
    assert photo.result().status_code == 200


def test_one_thread_restores_everything(make_client: MakeClient, callers: ThreadPoolExecutor) -> None:
    client = make_client()
    with slowed(client) as slow:
        slow.gate.set()
        answers = [post(callers, client) for _ in range(6)]
        assert all(answer.result().content == PHOTO for answer in answers)
    assert len(slow.thread_names) == 1


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


def test_no_more_photos_are_decoded_than_the_limit(
    make_client: MakeClient, callers: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = threading.Semaphore(0)

    def counted(*arguments: Any) -> Photo:
        decoded.release()
        return decode_photo(*arguments)

    monkeypatch.setattr("service.restoring.decode_photo", counted)
    client = make_client(max_decoded_photos=2)
    with slowed(client):
        answers = [post(callers, client) for _ in range(5)]
        wait_for_jobs(client, 5)
        assert decoded.acquire(timeout=5)
        assert decoded.acquire(timeout=5)
        assert not decoded.acquire(timeout=0.2)
    assert all(answer.result().status_code == 200 for answer in answers)


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
