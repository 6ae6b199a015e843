"""Whose tiles come next, what is in a batch, and what becomes of calls when something fails."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import structlog
import torch
from fastapi.testclient import TestClient
from torch import Tensor

from service.batcher import JobDropped, SharedGenerator, TileBatcher, TileJob, guess_tiles
from service.errors import DeviceBroken
from service.metrics import Metrics

from .serving import MakeClient, assert_problem, context_of, encode, grey_photo


class Doubler:
    """Its map is twice the tiles' mean; it waits at a gate and notes what it was given."""

    batch_size = 4
    calls_at_once = 1
    detector_radius_px = 0
    required_evidence = 0.0
    num_context_planes, has_verifier = 0, False
    conditions = ("see_through",)

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.batches: list[list[float]] = []
        self.fails: Callable[[Tensor], None] = lambda tiles: None

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        self.batches.append(tiles[:, 0, 0, 0].tolist())
        assert self.gate.wait(30)
        self.fails(tiles)
        return tiles.mean(dim=1, keepdim=True) * 2

    def verify(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        assert self.gate.wait(30)
        return tiles.mean(dim=1, keepdim=True) * (5 if context is None else 7)

    has_denoiser = True

    def denoise(self, tiles: Tensor) -> Tensor:
        assert self.gate.wait(30)
        return tiles * 3

    def fill(self, tiles: Tensor, mask: Tensor, conditions: Tensor | None = None) -> Tensor:
        assert self.gate.wait(30)
        return tiles + mask + (0.0 if conditions is None else conditions)


@pytest.fixture
def batcher() -> Iterator[TileBatcher]:
    batcher = TileBatcher(Metrics())
    yield batcher
    batcher.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def job(num_tiles: int = 1) -> TileJob:
    made = TileJob()
    made.expect(num_tiles)
    return made


def tiles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()


class Asking:
    """Calls in threads, made one after the other: each waits for its place in the queue."""

    def __init__(self, batcher: TileBatcher, threads: ThreadPoolExecutor, generator: Doubler) -> None:
        self.batcher, self.threads, self.generator = batcher, threads, generator
        self.num_asked = 0

    def detect(self, job: TileJob, *values: float) -> Future[Tensor]:
        shared = SharedGenerator(self.batcher, self.generator, job)
        answer = self.threads.submit(shared.detect, tiles(*values))
        self.num_asked += len(values)
        while not self.generator.batches:  # the first keeps the device busy
            threading.Event().wait(0.001)
        while sum(map(len, self.generator.batches)) + self.batcher.count_waiting() < self.num_asked:
            threading.Event().wait(0.001)
        return answer


@pytest.fixture
def asking(batcher: TileBatcher, threads: ThreadPoolExecutor) -> Iterator[Asking]:
    asking = Asking(batcher, threads, Doubler())
    yield asking
    asking.generator.gate.set()


def test_everybody_gets_the_answers_to_their_own_tiles(asking: Asking) -> None:
    answers = {value: asking.detect(job(), value, value + 0.5) for value in range(6)}
    asking.generator.gate.set()
    for value, answer in answers.items():
        assert answer.result()[:, 0, 0, 0].tolist() == [2 * value, 2 * value + 1]


def test_every_stage_asks_the_generator_for_its_own(asking: Asking) -> None:
    asking.generator.gate.set()
    shared = SharedGenerator(asking.batcher, asking.generator, job())
    assert shared.has_denoiser
    assert shared.denoise(tiles(0.25)).flatten()[0] == 0.75
    assert shared.detect(tiles(0.25)).flatten()[0] == 0.5
    assert shared.verify(tiles(0.25)).flatten()[0] == 1.25
    assert shared.verify(tiles(0.25), tiles(0.0)).flatten()[0] == 1.75


def test_batches_are_filled_from_several_photos_and_a_call_may_be_in_two(asking: Asking) -> None:
    answers = [asking.detect(job(), 0.0), asking.detect(job(5), 1, 1, 1), asking.detect(job(6), 2, 2, 2)]
    asking.generator.gate.set()
    assert [len(answer.result()) for answer in answers] == [1, 3, 3]
    assert asking.generator.batches == [[0], [1, 1, 1, 2], [2, 2]]


def test_the_photo_with_the_least_left_to_do_comes_first(asking: Asking) -> None:
    asking.detect(job(), 0.0)
    for num_tiles_left in (50, 1000, 3):
        asking.detect(job(num_tiles_left), *[num_tiles_left] * 4)
    asking.generator.gate.set()
    asking.detect(job(2000), 2000)
    while len(asking.generator.batches) < 4:
        pass
    assert asking.generator.batches[:3] == [[0], [3] * 4, [50] * 4]


def test_who_has_waited_longest_has_a_share(asking: Asking) -> None:
    asking.detect(job(), 0.0)
    scan = asking.detect(job(16_000), *[9.0] * 4)
    small = [asking.detect(job(2), *[1.0] * 4) for _ in range(8)]
    asking.generator.gate.set()
    scan.result()
    for answer in small:
        answer.result()
    assert asking.generator.batches.index([9.0] * 4) == 3


def test_the_device_is_held_for_a_small_photo_that_asks_again_at_once(
    asking: Asking, batcher: TileBatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but every fourth batch is its own; else a scan's batch would come between every two of them."""
    is_slow = property(lambda batcher: 0.01, lambda batcher, measured: None)
    monkeypatch.setattr(TileBatcher, "tiles_per_second", is_slow, raising=False)
    asking.detect(job(10_000), *[0.0] * 40)
    small = SharedGenerator(batcher, asking.generator, job(20))
    asking.generator.gate.set()
    for value in range(1, 7):
        small.detect(tiles(value))
    batcher.finish(small.job)
    order = [batch[0] for batch in asking.generator.batches]
    assert order[order.index(1.0) : order.index(6.0)].count(0.0) <= 2


def slow_scan(asking: Asking, num_tiles: int) -> Future[Tensor]:
    """A call whose batch is thought to take hours."""
    generator = Doubler()
    generator.batch_size, generator.gate = 10**9, asking.generator.gate
    return asking.threads.submit(SharedGenerator(asking.batcher, generator, job(num_tiles)).detect, tiles(0))


def test_the_device_is_held_no_longer_than_until_the_small_photo_is_done(asking: Asking, batcher: TileBatcher) -> None:
    asking.generator.gate.set()
    small = job(20)
    asking.detect(small, 1.0).result()
    scan = slow_scan(asking, 10_000)
    with pytest.raises(TimeoutError):
        scan.result(timeout=0.3)
    batcher.finish(small)
    assert len(scan.result(timeout=30)) == 1


def test_the_device_is_held_from_no_photo_of_like_size(asking: Asking) -> None:
    asking.generator.gate.set()
    asking.detect(job(20), 1.0).result()
    assert len(slow_scan(asking, 160).result(timeout=30)) == 1


def test_stages_and_releases_do_not_mix(batcher: TileBatcher, threads: ThreadPoolExecutor) -> None:
    first, second = Doubler(), Doubler()
    blocked = threads.submit(SharedGenerator(batcher, first, job()).detect, tiles(0))
    while not first.batches:
        pass
    answers = [
        threads.submit(SharedGenerator(batcher, first, job()).detect, tiles(1)),
        threads.submit(SharedGenerator(batcher, second, job()).detect, tiles(2)),
        threads.submit(SharedGenerator(batcher, first, job()).fill, tiles(3), tiles(1)),
        threads.submit(SharedGenerator(batcher, first, job()).fill, tiles(3), tiles(1), tiles(5)),
    ]
    while batcher.count_waiting() < 4:
        pass
    first.gate.set()
    second.gate.set()
    assert [answer.result().flatten()[0].item() for answer in (blocked, *answers)] == [0, 2, 4, 4, 9]
    assert (first.batches, second.batches) == ([[0], [1]], [[2]])


def test_what_nobody_waits_for_is_not_computed(asking: Asking, batcher: TileBatcher) -> None:
    asking.detect(job(), 0.0)
    gone = job(1)
    dropped = asking.detect(gone, 1.0)
    kept = asking.detect(job(9), 2.0)
    batcher.drop(gone)
    with pytest.raises(JobDropped):
        dropped.result()
    asking.generator.gate.set()
    assert kept.result().flatten()[0] == 4.0
    assert [1.0] not in asking.generator.batches
    with pytest.raises(JobDropped):
        SharedGenerator(batcher, asking.generator, gone).detect(tiles(1))


def test_a_batch_that_fails_fails_for_those_in_it_and_the_next_one_is_computed(
    asking: Asking, batcher: TileBatcher
) -> None:
    def fail_on_seven(tiles: Tensor) -> None:
        if (tiles == 7).any():
            raise RuntimeError("a fault of the seven")

    asking.generator.fails = fail_on_seven
    asking.generator.gate.set()
    with pytest.raises(RuntimeError, match="the seven"):
        SharedGenerator(batcher, asking.generator, job()).detect(tiles(7))
    assert SharedGenerator(batcher, asking.generator, job()).detect(tiles(8)).flatten()[0] == 16
    assert batcher.broken is None


class Growing(Doubler):
    """Each batch's map has a plane more than the last: those of one call cannot be joined."""

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        return super().detect(tiles).repeat(1, len(self.batches), 1, 1)


def test_answers_that_cannot_be_joined_fail_the_call_and_the_next_one_is_computed(
    batcher: TileBatcher, threads: ThreadPoolExecutor
) -> None:
    growing = Growing()
    growing.gate.set()
    with structlog.testing.capture_logs() as lines:
        answer = threads.submit(SharedGenerator(batcher, growing, job(6)).detect, tiles(*range(6)))
        with pytest.raises(RuntimeError, match="must match"):
            answer.result(timeout=30)
    assert [line["event"] for line in lines] == ["a batch failed"]
    following = threads.submit(SharedGenerator(batcher, growing, job()).fill, tiles(3), tiles(1))
    assert following.result(timeout=30).flatten()[0] == 4


def test_a_device_that_has_failed_answers_nobody_any_more(asking: Asking, batcher: TileBatcher) -> None:
    def fail(tiles: Tensor) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore of it")

    asking.generator.fails = fail
    answers = [asking.detect(job(), 0.0), *(asking.detect(job(), 1, 1, 1, 1) for _ in range(3))]
    asking.generator.gate.set()
    for answer in answers:
        with pytest.raises(DeviceBroken):
            answer.result()
    with pytest.raises(DeviceBroken, match=r"an illegal memory access was encountered$"):
        SharedGenerator(batcher, asking.generator, job()).detect(tiles(1))
    assert batcher.count_waiting() == 0


def test_a_failed_device_turns_the_service_red(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client: TestClient = make_client()
    generator = context_of(client).releases.restorer().generator

    def fail(*args: Any) -> Tensor:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(generator, "detect", fail)
    assert client.get("/livez").status_code == 200
    assert_problem(client.post("/restore", content=encode(grey_photo())), 503, "device-broken")
    assert "must be restarted" in assert_problem(client.get("/livez"), 503, "device-broken")["detail"]
    assert_problem(client.post("/restore", content=encode(grey_photo())), 503, "device-broken")
    assert_problem(client.get("/readyz"), 503, "device-broken")


def test_closing_fails_what_waits(threads: ThreadPoolExecutor) -> None:
    batcher, generator = TileBatcher(Metrics()), Doubler()
    running = threads.submit(SharedGenerator(batcher, generator, job()).detect, tiles(0))
    while not generator.batches:
        pass
    waiting = threads.submit(SharedGenerator(batcher, generator, job()).detect, tiles(1))
    while batcher.count_waiting() == 0:
        pass
    closing = threads.submit(batcher.close)
    with pytest.raises(JobDropped):
        waiting.result()
    generator.gate.set()
    closing.result()
    assert running.result().flatten()[0] == 0
    with pytest.raises(DeviceBroken, match="stopping"):
        SharedGenerator(batcher, generator, job()).detect(tiles(1))


def test_a_photo_does_not_wait_while_its_own_tiles_are_computed(asking: Asking) -> None:
    alone = job(3)
    answers = [asking.detect(alone, value) for value in (0.0, 1.0, 2.0)]
    threading.Event().wait(0.3)
    asking.generator.gate.set()
    for answer in answers:
        answer.result()
    assert alone.waited_seconds < 0.1


def test_a_photo_waits_while_the_tiles_of_another_are_computed(asking: Asking) -> None:
    asking.detect(job(), 0.0)
    other = job(2)
    answers = [asking.detect(other, value) for value in (1.0, 2.0)]
    threading.Event().wait(0.3)
    asking.generator.gate.set()
    for answer in answers:
        answer.result()
    assert 0.3 <= other.waited_seconds < 0.5  # once, although two calls waited


class ByFirstTile(Doubler):
    """A gate for each batch, named by its first tile: what is computed at once is done in the order of the test."""

    batch_size = 16

    def __init__(self, *firsts: float) -> None:
        super().__init__()
        self.gates = {first: threading.Event() for first in firsts}

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        first = float(tiles[0, 0, 0, 0])
        self.batches.append(tiles[:, 0, 0, 0].tolist())
        assert self.gates[first].wait(30)
        self.fails(tiles)
        return tiles.mean(dim=1, keepdim=True) * 2


@pytest.fixture
def pair() -> Iterator[TileBatcher]:
    """With two threads."""
    batcher = TileBatcher(Metrics(), num_threads=2)
    yield batcher
    batcher.close()


def ask_both(batcher: TileBatcher, threads: ThreadPoolExecutor, generator: ByFirstTile, job: TileJob) -> Future[Tensor]:
    """Eight tiles, when each thread computes four of them."""
    while batcher._num_idle < 2:
        threading.Event().wait(0.001)
    answer = threads.submit(SharedGenerator(batcher, generator, job).detect, tiles(*range(8)))
    while len(generator.batches) < 2:
        threading.Event().wait(0.001)
    assert sorted(generator.batches) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    return answer


@pytest.mark.parametrize("order", [(0, 4), (4, 0)])
def test_idle_threads_share_a_call_and_its_answer_is_in_order_whoever_is_done_first(
    pair: TileBatcher, threads: ThreadPoolExecutor, order: tuple[int, int]
) -> None:
    generator = ByFirstTile(*order)
    answer = ask_both(pair, threads, generator, job(8))
    for first in order:
        assert not answer.done()
        generator.gates[first].set()
        while first == order[0] and pair._num_idle < 1:
            threading.Event().wait(0.001)
    assert answer.result()[:, 0, 0, 0].tolist() == [2.0 * value for value in range(8)]


def test_idle_threads_share_evenly(pair: TileBatcher, threads: ThreadPoolExecutor) -> None:
    while pair._num_idle < 2:
        threading.Event().wait(0.001)
    generator = ByFirstTile(0, 3)
    answer = threads.submit(SharedGenerator(pair, generator, job()).detect, tiles(*range(5)))
    while len(generator.batches) < 2:
        threading.Event().wait(0.001)
    assert sorted(generator.batches) == [[0, 1, 2], [3, 4]]
    for gate in generator.gates.values():
        gate.set()
    assert answer.result()[:, 0, 0, 0].tolist() == [0, 2, 4, 6, 8]


def test_threads_of_a_gpu_take_whole_batches(threads: ThreadPoolExecutor) -> None:
    batcher, generator = TileBatcher(Metrics(), num_threads=2, shares_out=False), ByFirstTile(0, 16)
    answer = threads.submit(SharedGenerator(batcher, generator, job(20)).detect, tiles(*range(20)))
    while len(generator.batches) < 2:
        threading.Event().wait(0.001)
    assert sorted(generator.batches) == [[*range(16)], [*range(16, 20)]]
    for gate in generator.gates.values():
        gate.set()
    assert answer.result()[:, 0, 0, 0].tolist() == [2.0 * value for value in range(20)]
    batcher.close()


def test_a_call_of_which_one_batch_fails_fails_at_once_and_the_other_batch_harms_nobody(
    pair: TileBatcher, threads: ThreadPoolExecutor
) -> None:
    def fail_on_four(tiles: Tensor) -> None:
        if (tiles == 4).any():
            raise RuntimeError("a fault of the four")

    generator, photo = ByFirstTile(0, 4, 9), job(8)
    generator.fails = fail_on_four
    answer = ask_both(pair, threads, generator, photo)
    generator.gates[4].set()
    with pytest.raises(RuntimeError, match="the four"):
        answer.result(timeout=30)
    pair.finish(photo)
    generator.gates[0].set()
    generator.gates[9].set()
    assert SharedGenerator(pair, generator, job()).detect(tiles(9)).flatten()[0] == 18
    assert photo.num_tiles_left == 0


def test_closing_waits_for_every_batch_that_runs(pair: TileBatcher, threads: ThreadPoolExecutor) -> None:
    generator = ByFirstTile(0, 4)
    answer = ask_both(pair, threads, generator, job(8))
    closing = threads.submit(pair.close)
    generator.gates[0].set()
    with pytest.raises(TimeoutError):
        closing.result(timeout=0.1)
    generator.gates[4].set()
    closing.result(timeout=30)
    assert len(answer.result()) == 8


def test_a_scan_leaves_a_small_photo_a_thread_after_a_batch_at_most(
    pair: TileBatcher, threads: ThreadPoolExecutor
) -> None:
    generator = ByFirstTile(0, 4, 8, 50)
    ask_both(pair, threads, generator, job(10_000))
    waiting = threads.submit(SharedGenerator(pair, generator, job(10_000)).detect, tiles(*[8.0] * 80))
    small = threads.submit(SharedGenerator(pair, generator, job(5)).detect, tiles(50))
    while pair.count_waiting() < 81:
        threading.Event().wait(0.001)
    generator.gates[50].set()
    generator.gates[4].set()
    assert small.result(timeout=30).flatten()[0] == 100
    assert not waiting.done()
    for gate in generator.gates.values():
        gate.set()


def test_a_scan_of_a_hundred_megapixels_is_guessed_to_be_some_twelve_thousand_tiles() -> None:
    assert guess_tiles(100_000_000) == pytest.approx(12_200, rel=0.01)
    assert guess_tiles(100_000_000, "tile") == pytest.approx(9_160, rel=0.01)
    assert guess_tiles(100_000_000, "resize") == guess_tiles(1) == 3


@pytest.mark.parametrize("mode", ["auto", "tile", "resize"])
def test_denoising_looks_at_every_tile_once_more(mode: Any) -> None:
    assert guess_tiles(100_000_000, mode, is_denoised=True) - guess_tiles(100_000_000, mode) == 6104
    assert guess_tiles(1, mode, is_denoised=True) == 4
