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
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import structlog
from starlette.requests import ClientDisconnect

from restoration.device import choose_device
from restoration.freed_memory import keep_freed_memory
from restoration.photo import Photo
from restoration.restorer import Restoration, RestoreOptions, Restorer, restore_photo
from service.answers import Answer, RestoreQuery, encode_answer
from service.batcher import SharedGenerator, TileBatcher, TileJob, count_device_threads, guess_tiles
from service.codecs import SMALL_PIXELS, Codec
from service.decoding import decode_upload, measure_upload
from service.errors import DeadlineExceeded, Draining, QueueFull
from service.lanes import Lane
from service.metrics import Metrics
from service.parcels import share_array
from service.settings import Settings
from service.threads import call_in
from service.uploads import Upload

NUM_HEADER_THREADS = 2
MOST_SMALL, NUM_LARGE = 8, 4
"""Photos in the works at a time, by lane: of small ones at most so many, unless RESTORE_SMALL_PHOTOS says otherwise; of
large ones always."""
SWITCH_SECONDS = 0.0001
"""After so long a thread that computes in Python lets others go on who need the interpreter for a moment, between two
layers of a network or to launch the next batch. By default it is 5 ms, for which a core or a GPU may stand still: a
sixth fewer photos a second on two cores."""
MOST_RETRY_SECONDS = 600

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
