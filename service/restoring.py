"""Photos through decoder, generator and encoder, off the event loop and within bounds.

    waiting (max_queued_requests, max_queued_tiles) ──► lane: decode ──► restore ──► encode
                                                                          │  ▲
                                                                          ▼  │
                                                            tiles in batches

Small photos and large ones have a lane each, with threads, processes that decode and encode (`codecs.py`), and room for
decoded samples of its own: a small photo never waits for a large one to be decoded or encoded, and its tiles overtake
(`batcher.py`).
"""

import asyncio
import math
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import structlog
from starlette.requests import ClientDisconnect

from restoration.device import choose_device
from restoration.errors import InvalidOption, PhotoError
from restoration.freed_memory import keep_freed_memory
from restoration.photo import Photo
from restoration.restorer import Restoration, RestoreOptions, Restorer, expect_mask_size, restore_photo
from service.answers import Answer, RestoreQuery, check_answer, encode_answer
from service.batcher import SharedGenerator, TileBatcher, TileJob, count_device_threads, guess_tiles
from service.codecs import SMALL_PIXELS, Codec
from service.errors import DeadlineExceeded, Draining, QueueFull
from service.metrics import Metrics
from service.parcels import share_array
from service.settings import Settings
from service.threads import call_in
from service.uploads import Upload

NUM_HEADER_THREADS = 2
MOST_SMALL, NUM_LARGE = 8, 4
"""Photos in the works at a time, by lane, unless the settings say otherwise."""
SWITCH_SECONDS = 0.0001
"""After so long a thread that computes in Python lets others go on who need the interpreter for a moment, between two
layers of a network or to launch the next batch. By default it is 5 ms, for which a core or a GPU may stand still: a
sixth fewer photos a second on two cores."""
MOST_RETRY_SECONDS = 600
MASK_THRESHOLD = 128
"""A mask's pixel counts when any of its colours is at least this bright."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Timing:
    """Seconds of one request after its upload, by what they were spent on."""

    queue_seconds: float
    decode_seconds: float
    infer_seconds: float
    encode_seconds: float


@dataclass(frozen=True)
class Restored:
    """A finished request."""

    answer: Answer
    damage_ratio: float
    suspected_from: float | None
    timing: Timing


class Room:
    """So many pixels may be decoded at once; who waits is served in order."""

    def __init__(self, num_pixels: int) -> None:
        self._num_free = num_pixels
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, num_pixels: int) -> AsyncIterator[None]:
        """`num_pixels` must not be more than there are in all."""
        if self._waiting or num_pixels > self._num_free:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((num_pixels, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.cancelled():  # else it had come up already
                    self._wake()
                else:
                    self._give_back(num_pixels)
                raise
        else:
            self._num_free -= num_pixels
        try:
            yield
        finally:
            self._give_back(num_pixels)

    def _give_back(self, num_pixels: int) -> None:
        self._num_free += num_pixels
        self._wake()

    def _wake(self) -> None:
        while self._waiting:
            num_pixels, turn = self._waiting[0]
            if not turn.cancelled():
                if num_pixels > self._num_free:
                    return
                self._num_free -= num_pixels
                turn.set_result(None)
            self._waiting.popleft()


@dataclass(frozen=True)
class Lane:
    """So many photos in the works at a time, a thread for each, processes, and room for what is decoded."""

    threads: ThreadPoolExecutor
    codec: Codec
    places: asyncio.Semaphore
    room: Room

    @classmethod
    def open(cls, name: str, codec: Codec, num_photos: int, num_pixels: int) -> "Lane":
        return cls(ThreadPoolExecutor(num_photos, name), codec, asyncio.Semaphore(num_photos), Room(num_pixels))


def count_small(settings: Settings, num_device_threads: int) -> int:
    """How many small photos are in the works at a time: on a CPU hardly more than keep its cores busy."""
    if settings.small_photos:
        return settings.small_photos
    if choose_device(settings.device).type == "cuda":
        return MOST_SMALL
    return min(MOST_SMALL, 2 + num_device_threads)


class RestoreQueue:
    """Takes uploads, gives answers."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        keep_freed_memory()  # before there are threads
        sys.setswitchinterval(SWITCH_SECONDS)
        num_threads = count_device_threads(settings)
        self.batcher = TileBatcher(metrics, num_threads, shares_out=choose_device(settings.device).type == "cpu")
        self._headers = ThreadPoolExecutor(NUM_HEADER_THREADS, "header")
        codec = partial(Codec.open, settings, metrics)
        num_small = count_small(settings, num_threads)
        self._small = Lane.open("small", codec(), num_small, num_small * SMALL_PIXELS)
        self._large = Lane.open("large", codec(), NUM_LARGE, settings.max_decoded_pixels)
        self._max_jobs = settings.max_queued_requests
        self._max_tiles = settings.max_queued_tiles
        self._deadline_seconds = settings.deadline_seconds
        self._metrics = metrics
        self._jobs: dict[asyncio.Task[Restored], TileJob] = {}
        self._watches: set[asyncio.Task[None]] = set()
        """One for each request that waits for its job: done when the client is gone, cancelled to have it answered."""
        self.is_draining = False
        metrics.in_progress.set_function(lambda: self.num_jobs)

    def start(self) -> None:
        """Have processes ready for what comes. Raises OSError."""
        self._small.codec.pool.start()
        self._large.codec.pool.start()

    def drain(self) -> None:
        """Finish what is here, take nothing new."""
        self.is_draining = True

    def abandon(self) -> None:
        """Answer whoever waits with Draining, whatever their photo has come to. To be called in the event loop."""
        self.drain()
        for watch in self._watches:
            watch.cancel()

    @property
    def num_jobs(self) -> int:
        """Requests waiting or in the works."""
        return len(self._jobs)

    @property
    def num_tiles_left(self) -> int:
        """What all requests have left to do on the device, about."""
        return sum(job.num_tiles_left for job in list(self._jobs.values()))

    def close(self) -> None:
        """Wait for what runs in the threads, and end them and the processes."""
        for executor in (self._headers, self._small.threads, self._large.threads):
            executor.shutdown(wait=True, cancel_futures=True)
        for lane in (self._small, self._large):
            lane.codec.pool.close()
        self.batcher.close()

    def check_open(self) -> None:
        """Raises Draining, DeviceBroken or QueueFull: worth asking before an upload is read."""
        if self.is_draining:
            raise Draining("the service is about to stop; send the photo again, another instance may take it")
        self.batcher.check_usable()
        if self.num_jobs >= self._max_jobs:
            raise self._queue_full(f"{self.num_jobs} requests are waiting already, which is the limit")

    def _queue_full(self, found: str) -> QueueFull:
        seconds = math.ceil(self.num_tiles_left / self.batcher.tiles_per_second)
        return QueueFull(f"{found}; try again later", retry_after_seconds=min(max(1, seconds), MOST_RETRY_SECONDS))

    async def restore(
        self,
        restorer: Restorer,
        upload: Upload,
        query: RestoreQuery,
        client_gone: Callable[[], Coroutine[None, None, None]],
        charge_photo: Callable[[int], None],
    ) -> Restored:
        """Raises PhotoError, InvalidOption, Draining, QueueFull, DeviceBroken, DeadlineExceeded, ClientDisconnect when
        `client_gone` returns, and whatever `charge_photo` raises, which is given the pixels before any is decoded.

        Draining may come late: see `abandon`. What nobody waits for any more is dropped: at once if it was waiting,
        between two batches of tiles if it was being restored; decoding or encoding that has begun is finished in the
        background.
        """
        self.check_open()
        tiles = TileJob()
        job = asyncio.create_task(self._work(restorer, upload, query, tiles, charge_photo))
        self._jobs[job] = tiles
        job.add_done_callback(self._finish)
        gone = asyncio.create_task(client_gone())
        self._watches.add(gone)
        gone.add_done_callback(self._watches.discard)
        try:
            await asyncio.wait({job, gone}, timeout=self._deadline_seconds, return_when=asyncio.FIRST_COMPLETED)
            if job.done():
                return job.result()
            if gone.cancelled():
                raise Draining(
                    "the service stops before the photo is done; send it again, another instance may take it"
                )
            if gone.done():
                raise ClientDisconnect
            raise DeadlineExceeded(f"the photo was not restored within {self._deadline_seconds:g} seconds")
        finally:
            gone.cancel()
            if not job.done():
                self.batcher.drop(tiles)
                job.cancel()

    def _finish(self, job: asyncio.Task[Restored]) -> None:
        del self._jobs[job]
        if not job.cancelled() and (error := job.exception()) is not None:
            log.debug("not restored", error=type(error).__name__)

    async def _work(
        self,
        restorer: Restorer,
        upload: Upload,
        query: RestoreQuery,
        tiles: TileJob,
        charge_photo: Callable[[int], None],
    ) -> Restored:
        started_seconds = time.perf_counter()
        num_pixels, header_seconds = await call_in(self._headers, measure_upload, self._small.codec, upload)
        num_tiles = guess_tiles(num_pixels, query.mode, is_denoised=query.denoise > 0.0)
        num_ahead = self.num_tiles_left
        if num_ahead and num_ahead + num_tiles > self._max_tiles:
            raise self._queue_full(f"{num_ahead:,} tiles are waiting already, and the limit is {self._max_tiles:,}")
        charge_photo(num_pixels)
        tiles.expect(num_tiles)
        generator = SharedGenerator(self.batcher, restorer.generator, tiles)
        lane = self._small if num_pixels <= SMALL_PIXELS else self._large
        async with lane.places, lane.room.hold(num_pixels):
            (photo, options), decode_seconds = await call_in(
                lane.threads, decode_upload, lane.codec, upload, query, num_pixels
            )
            restoration, restore_seconds = await call_in(lane.threads, restore_to_share, photo, generator, options)
            version = restorer.release.version
            answer, encode_seconds = await call_in(
                lane.threads, encode_answer, lane.codec, photo, restoration, query, version
            )
        decode_seconds += header_seconds
        infer_seconds = max(0.0, restore_seconds - tiles.waited_seconds)
        busy_seconds = decode_seconds + infer_seconds + encode_seconds
        queue_seconds = max(0.0, time.perf_counter() - started_seconds - busy_seconds)
        timing = Timing(queue_seconds, decode_seconds, infer_seconds, encode_seconds)
        self._measure(photo, restoration, timing)
        return Restored(answer, restoration.damage_ratio, restoration.suspected_from, timing)

    def _measure(self, photo: Photo, restoration: Restoration, timing: Timing) -> None:
        self._metrics.queue_seconds.observe(timing.queue_seconds)
        self._metrics.decode_seconds.observe(timing.decode_seconds)
        self._metrics.infer_seconds.observe(timing.infer_seconds)
        self._metrics.encode_seconds.observe(timing.encode_seconds)
        self._metrics.compose_seconds.observe(sum(restoration.seconds.get(stage, 0.0) for stage in ("mask", "compose")))
        self._metrics.pixels.inc(sum(page.height_px * page.width_px for page in photo.pages))
        self._metrics.damage_ratio.observe(restoration.damage_ratio)


def measure_upload(codec: Codec, upload: Upload) -> int:
    """Pixels of the photo, all pages together, by its header; nothing is decoded. Its masks must have its size.

    Raises PhotoError for the photo, InvalidOption for a mask, CodecUnavailable.
    """
    num_pixels = codec.count_pixels(upload.image)
    fields = {"damage": upload.damage, "protect": upload.protect}
    if masks := {field: encoded for field, encoded in fields.items() if encoded is not None}:
        photo_px = codec.measure(upload.image)
        for field, encoded in masks.items():
            expect_mask(codec, field, encoded, photo_px)
    return num_pixels


def expect_mask(codec: Codec, field: str, encoded: bytes, photo_px: tuple[int, int]) -> None:
    """photo_px: height and width. Raises InvalidOption for what is no mask of that size, and CodecUnavailable."""
    with _naming(field):
        height_px, width_px = mask_px = codec.measure(encoded)
        has_further_pages = codec.count_pixels(encoded) > height_px * width_px
    expect_mask_size(field, mask_px, photo_px)
    if has_further_pages:
        raise InvalidOption(f"the field {field!r} is no mask: it has several pages; send the one that is meant")


def decode_upload(codec: Codec, upload: Upload, query: RestoreQuery, num_pixels: int) -> tuple[Photo, RestoreOptions]:
    """Raises PhotoError for the photo, InvalidOption for a mask or for an answer that the photo cannot be had in,
    CodecUnavailable."""
    photo = codec.decode(upload.image, num_pixels)
    check_answer(query, photo)
    options = RestoreOptions(
        mode=query.mode,
        sensitivity=query.sensitivity,
        denoise=query.denoise,
        damage=decode_mask(codec, "damage", upload.damage, num_pixels),
        protect=decode_mask(codec, "protect", upload.protect, num_pixels),
    )
    return photo, options


def restore_to_share(photo: Photo, generator: SharedGenerator, options: RestoreOptions) -> Restoration:
    """`restore_photo`, whose samples codec processes can be given without a copy: not the photo, nor what became of it,
    is held twice while it is encoded."""
    try:
        restoration = restore_photo(photo, generator, options)
    finally:
        generator.batcher.finish(generator.job)
    if sum(page.height_px * page.width_px for page in photo.pages) <= SMALL_PIXELS:
        return restoration
    with suppress(OSError):  # without memory to share it is refused when it is to be encoded
        further_pages = tuple(replace(page, samples=share_array(page.samples)) for page in restoration.further_pages)
        return replace(restoration, samples=share_array(restoration.samples), further_pages=further_pages)
    return restoration


def decode_mask(codec: Codec, field: str, encoded: bytes | None, num_pixels: int) -> np.ndarray | None:
    """(H, W) bool, True where the mask is bright; None without one. Raises InvalidOption naming the field, and
    CodecUnavailable."""
    if encoded is None:
        return None
    with _naming(field):
        mask = codec.decode(encoded, num_pixels)
    is_marked: np.ndarray = mask.colour().max(axis=2) >= MASK_THRESHOLD
    return is_marked


@contextmanager
def _naming(field: str) -> Iterator[None]:
    """What is wrong with a mask is not wrong with the photo."""
    try:
        yield
    except PhotoError as error:
        raise InvalidOption(f"the field {field!r} is no mask: {error}") from error
