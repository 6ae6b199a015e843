"""Threads for the device, and batches of tiles from all photos in the works.

    photo threads ── detect, verify, fill, denoise ──► calls ── the next batch ──► device threads ──► answers

A GPU has two, so that one batch is copied while the other is computed
([why](../docs/decisions/0042-graphs-of-one-shape-on-a-gpu.md)); a CPU one for each core, each of which computes on its
own ([why](../docs/decisions/0040-a-device-thread-for-each-core.md)), and what waits is shared out between those that
are idle.

Whose tiles come next: those of the photo with the least left to do, so that a small photo overtakes a large scan; every
few batches, those that have waited longest, so that the scan gets on. A batch takes tiles of one stage and one release,
from several photos where one has not enough. Nothing waits for a batch to fill up: while the device is busy calls
gather by themselves, and when it is idle there is nothing to wait for.

A small photo has few tiles at a time, and asks again as soon as it has their answers. So that a scan's batch is not
begun in each of these moments, the device is held for it, at most as long as such a batch would take.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

import structlog
import torch
from torch import Tensor

from restoration import cuda
from restoration.device import InFrontOf, TileGenerator, choose_device
from restoration.restorer import Mode
from service.errors import DeviceBroken
from service.metrics import Metrics
from service.settings import Settings

Stage = Literal["detect", "verify", "fill", "denoise"]
FIRST_GUESS_TILES_PER_SECOND = 20.0
LONGEST_WAITING_TURN = 4
"""Every so many batches, the call that has waited longest leads."""
MUCH_LARGER = 8
"""The device is held for a photo while only such wait as have so many times its tiles."""
TILES_PER_PIXEL = 1.5 / 128**2
"""About, at one scale, of a damaged photo of a megapixel: a third of them detected, a half verified, the others filled
(counted with release 0010). Releases without a verifier take twice as many."""
DENOISED_TILES_PER_PIXEL = 1 / 128**2
"""Each once, at the photo's own scale alone."""
LEAST_TILES = 3
"""One, verified and filled."""

log = structlog.get_logger(__name__)


def guess_tiles(num_pixels: int, mode: Mode = "auto", *, is_denoised: bool = False) -> int:
    """About how many tiles a damaged photo of so many pixels takes: smaller copies are a third of it again."""
    num_denoised = max(1, round(num_pixels * DENOISED_TILES_PER_PIXEL)) if is_denoised else 0
    if mode == "resize":
        return LEAST_TILES + num_denoised
    return max(LEAST_TILES, round(num_pixels * TILES_PER_PIXEL * (4 / 3 if mode == "auto" else 1))) + num_denoised


def count_device_threads(settings: Settings) -> int:
    """To be called before there are any: once they compute, torch counts one in each further thread."""
    if choose_device(settings.device).type == "cuda":
        return cuda.NUM_AT_ONCE
    return settings.device_threads or torch.get_num_threads()


class JobDropped(Exception):
    """Nobody waits for the photo any more."""


class TileJob:
    """One photo's work on the device. Made before the photo's size is known."""

    def __init__(self) -> None:
        self.num_tiles = 0
        """A guess from the photo's size."""
        self.num_tiles_left = 0
        """A guess from the photo's size, less what was computed; 0 before its size is known and once it is restored."""
        self.waited_seconds = 0.0
        """How long it waited for the device while none of its tiles was computed."""
        self._num_in_batches = 0
        self._free_since_seconds = 0.0
        self.is_dropped = False

    def expect(self, num_tiles: int) -> None:
        """Before it asks for any."""
        self.num_tiles = self.num_tiles_left = num_tiles

    def enter_batch(self, asked_seconds: float) -> None:
        """Tiles that were asked for then, on the monotonic clock, are computed from now on."""
        if self._num_in_batches == 0:
            self.waited_seconds += time.monotonic() - max(asked_seconds, self._free_since_seconds)
        self._num_in_batches += 1

    def leave_batch(self) -> None:
        """These were computed."""
        self._num_in_batches -= 1
        self._free_since_seconds = time.monotonic()


@dataclass(eq=False)
class _Call:
    """Tiles that one photo's thread waits for. inputs: (N, C, T, T) each."""

    job: TileJob
    generator: TileGenerator
    stage: Stage
    inputs: tuple[Tensor, ...]
    answer: Future[Tensor] = field(default_factory=Future)
    asked_seconds: float = field(default_factory=time.monotonic)
    num_taken: int = 0
    answered: dict[int, Tensor] = field(default_factory=dict)
    """By their first tile: of several batches that are computed at once, a later one may be done sooner."""

    @property
    def num_waiting(self) -> int:
        return len(self.inputs[0]) - self.num_taken

    def may_join(self, other: "_Call") -> bool:
        """Whether tiles of both can be in one batch."""
        alike = len(self.inputs) == len(other.inputs)
        return alike and self.stage == other.stage and self.generator is other.generator

    def take(self, num: int) -> "_Part":
        self.job.enter_batch(self.asked_seconds)
        first = self.num_taken
        self.num_taken += num
        return _Part(self, first, tuple(tiles[first : self.num_taken] for tiles in self.inputs))

    def note(self, first: int, answer: Tensor) -> bool:
        """What became of the tiles from `first` on. Returns whether that was the last to be known."""
        if self.answer.done():  # it was dropped, or another of its batches failed
            return False
        self.job.num_tiles_left = max(1, self.job.num_tiles_left - len(answer))
        self.answered[first] = answer
        return sum(map(len, self.answered.values())) == len(self.inputs[0])

    def finish(self) -> None:
        """Once all is known."""
        self.answer.set_result(_joined([self.answered[first] for first in sorted(self.answered)]))


@dataclass(frozen=True)
class _Part:
    """The tiles of a call that are in one batch."""

    call: _Call
    first: int
    inputs: tuple[Tensor, ...]


class TileBatcher:
    """Runs every generator's `detect`, `verify`, `fill` and `denoise` in threads of its own, in batches."""

    def __init__(self, metrics: Metrics, num_threads: int = 1, *, shares_out: bool = True) -> None:
        """num_threads: how many batches are computed at once. shares_out: whether each takes a part of what waits; a
        GPU takes as long for a batch however few tiles are in it."""
        self.num_threads = num_threads
        self._shares_out = shares_out and num_threads > 1
        self._metrics = metrics
        self._calls: list[_Call] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._num_batches = 0
        self._served: set[TileJob] = set()
        """Photos that may be about to ask again."""
        self.tiles_per_second = FIRST_GUESS_TILES_PER_SECOND
        """Of all of the device's threads while they are busy, of late."""
        self.broken: str | None = None
        """Why the device cannot be used by this process any more."""
        self._num_idle = 0
        """Threads that wait for tiles."""
        metrics.queue_tiles.set_function(self.count_waiting)
        self._threads = [threading.Thread(target=self._run, name="device", daemon=True) for _ in range(num_threads)]
        for thread in self._threads:
            thread.start()

    def compute(self, job: TileJob, generator: TileGenerator, stage: Stage, *inputs: Tensor | None) -> Tensor:
        """What the generator's stage makes of the tiles; waits for it. inputs: in its order, None for what is left out.

        Raises JobDropped and DeviceBroken.
        """
        call = _Call(job, generator, stage, tuple(each for each in inputs if each is not None))
        with self._changed:
            self.check_usable()
            if self._is_closed:
                raise DeviceBroken("the service is stopping")
            if job.is_dropped:
                raise JobDropped
            self._calls.append(call)
            self._changed.notify_all()
        return call.answer.result()

    def check_usable(self) -> None:
        """Raises DeviceBroken once the device has failed."""
        if self.broken:
            raise DeviceBroken(self.broken)

    def give_up(self, error: torch.AcceleratorError) -> None:
        """After such an error a process cannot use the device any more: then nobody can be served."""
        reason = str(error).partition("\n")[0]
        with self._changed:
            self.broken = f"the device failed, and the service must be restarted: {reason}"
            waiting, self._calls = self._calls, []
            _fail(waiting, DeviceBroken(self.broken))

    def drop(self, job: TileJob) -> None:
        """Take back what the job has waiting; it gets no more. Batches that run are finished."""
        with self._changed:
            job.is_dropped = True
            dropped = [call for call in self._calls if call.job is job]
            self._calls = [call for call in self._calls if call.job is not job]
            _fail(dropped, JobDropped())

    def finish(self, job: TileJob) -> None:
        """The job asks for nothing more."""
        with self._changed:
            job.num_tiles_left = 0
            self._changed.notify_all()

    def close(self) -> None:
        """Finish the batches that run, and fail what waits."""
        with self._changed:
            self._is_closed = True
            waiting, self._calls = self._calls, []
            _fail(waiting, JobDropped())
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def count_waiting(self) -> int:
        """Tiles that wait for the device."""
        with self._changed:
            return sum(call.num_waiting for call in self._calls)

    # --- in the device's threads --------------------------------------------------------------------------------------

    def _run(self) -> None:
        if self.num_threads > 1:
            torch.set_num_threads(1)  # for this one, and for those that first compute after it: photos' threads
        while True:
            with self._changed:
                self._num_idle += 1
                self._changed.wait_for(lambda: self._calls or self._is_closed)
                self._hold_for_small()
                self._num_idle -= 1
                if self._is_closed:
                    return
                batch = self._next_batch() if self._calls else []
                self._served |= {part.call.job for part in batch}
            if batch:
                self._compute_batch(batch)

    def _hold_for_small(self) -> None:
        """Wait until a photo that was served asks again, if all that wait are much larger."""
        self._served = {job for job in self._served if job.num_tiles_left and not job.is_dropped}
        is_turn_of_longest = (self._num_batches + 1) % LONGEST_WAITING_TURN == 0
        if is_turn_of_longest or not self._calls:
            return
        hold_seconds = self._most_tiles(self._calls[0].generator) * self.num_threads / self.tiles_per_second
        if not self._changed.wait_for(lambda: self._is_closed or not self._is_small_expected(), hold_seconds):
            self._served.clear()  # they take their time

    def _is_small_expected(self) -> bool:
        """Whether none that waits is as small as one that may ask again."""
        expected = [job.num_tiles for job in self._served if job.num_tiles_left and not job.is_dropped]
        waiting = [call.job.num_tiles for call in self._calls]
        return bool(expected and waiting) and min(waiting) > MUCH_LARGER * min(expected)

    def _next_batch(self) -> list[_Part]:
        self._num_batches += 1
        if self._num_batches % LONGEST_WAITING_TURN == 0:
            first = min(self._calls, key=lambda call: call.asked_seconds)
        else:
            first = min(self._calls, key=lambda call: call.job.num_tiles_left)
        alike = [call for call in self._calls if call.may_join(first)]
        room = self._share(sum(call.num_waiting for call in alike), self._most_tiles(first.generator))
        others = (call for call in alike if call is not first)
        batch: list[_Part] = []
        for call in (first, *sorted(others, key=lambda call: call.job.num_tiles_left)):
            if room == 0:
                break
            batch.append(call.take(min(room, call.num_waiting)))
            room -= len(batch[-1].inputs[0])
        self._calls = [call for call in self._calls if call.num_waiting]
        return batch

    def _most_tiles(self, generator: TileGenerator) -> int:
        """In one batch. Of several threads each takes half: activations of two halves take less memory than a whole."""
        return max(1, generator.batch_size // 2) if self._shares_out else generator.batch_size

    def _share(self, num_tiles: int, most: int) -> int:
        """How many of the tiles that wait this thread takes: idle ones get theirs."""
        num_sharing = 1 + self._num_idle if self._shares_out else 1
        return min(most, -(-num_tiles // num_sharing))

    def _compute_batch(self, batch: list[_Part]) -> None:
        first = batch[0].call
        started_seconds = time.monotonic()
        try:
            inputs = tuple(_joined(tiles) for tiles in zip(*(part.inputs for part in batch), strict=True))
            answers = getattr(first.generator, first.stage)(*inputs)
            parts = torch.split(answers, [len(part.inputs[0]) for part in batch])
        except Exception as error:  # whatever it is, the threads that wait must hear of it, and the others be served
            self._fail_calls({part.call for part in batch}, error)
            return
        finally:
            busy_seconds = time.monotonic() - started_seconds
            self._metrics.device_busy_seconds.inc(busy_seconds / self.num_threads)
            with self._changed:
                for part in batch:
                    part.call.job.leave_batch()
        rate = self.num_threads * len(answers) / max(busy_seconds, 1e-6)
        with self._changed:
            self.tiles_per_second += 0.1 * (rate - self.tiles_per_second)
            answered = [
                part.call for part, answer in zip(batch, parts, strict=True) if part.call.note(part.first, answer)
            ]
        for call in answered:  # not with the lock held: answers of several batches are copied into one
            try:
                call.finish()
            except Exception as error:  # as above
                self._fail_calls({call}, error)
        self._metrics.batch_size.observe(len(answers))
        self._metrics.tiles.labels(first.stage).inc(len(answers))

    def _fail_calls(self, failed: set[_Call], error: Exception) -> None:
        log.error("a batch failed", exc_info=error, stage=next(iter(failed)).stage)
        if isinstance(error, torch.AcceleratorError):
            self.give_up(error)
            error = DeviceBroken(str(self.broken))
        with self._changed:
            self._calls = [call for call in self._calls if call not in failed]
            _fail(failed, error)


def _joined(tiles: Sequence[Tensor]) -> Tensor:
    """One after the other; the same where it is only one, since a batch may be 40 MB."""
    return torch.cat(list(tiles)) if len(tiles) > 1 else tiles[0]


def _fail(calls: Iterable[_Call], error: Exception) -> None:
    """To be called by whoever holds the lock: a call is answered once."""
    for call in calls:
        if not call.answer.done():
            call.answer.set_exception(error)


@dataclass(frozen=True)
class SharedGenerator(InFrontOf):
    """A release's generator as one photo sees it: its tiles share batches with those of other photos."""

    batcher: TileBatcher
    generator: TileGenerator
    job: TileJob

    @property
    def calls_at_once(self) -> int:
        """See `TileGenerator.calls_at_once`: a call's tiles keep two threads busy, and one more is being made."""
        return self.batcher.num_threads // 2 + 1

    def detect(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        """See `TileGenerator.detect`."""
        return self.batcher.compute(self.job, self.generator, "detect", tiles, context)

    def verify(self, tiles: Tensor, context: Tensor | None = None) -> Tensor:
        """See `TileGenerator.verify`."""
        return self.batcher.compute(self.job, self.generator, "verify", tiles, context)

    def fill(self, tiles: Tensor, mask: Tensor, conditions: Tensor | None = None) -> Tensor:
        """See `TileGenerator.fill`."""
        return self.batcher.compute(self.job, self.generator, "fill", tiles, mask, conditions)

    def denoise(self, tiles: Tensor) -> Tensor:
        """See `TileGenerator.denoise`."""
        return self.batcher.compute(self.job, self.generator, "denoise", tiles)
