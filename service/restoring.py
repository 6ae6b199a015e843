"""Photos through decoder, generator and encoder, off the event loop and within bounds.

    waiting (max_queued_requests) ──► decoded (max_decoded_photos): decode ──► infer ──► encode
                                                                    threads    one thread  threads

The generator runs in one thread of its own: a device does one thing at a time, and CUDA's state belongs to a thread.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import structlog

from restoration.errors import InvalidOption, PhotoError
from restoration.photo import Photo, PhotoLimits, decode_photo
from restoration.restorer import Restoration, RestoreOptions, Restorer
from service.answers import Answer, RestoreQuery, encode_answer
from service.errors import DeadlineExceeded, Draining, QueueFull
from service.metrics import Metrics
from service.settings import Settings
from service.threads import call_in
from service.uploads import Upload

NUM_CODEC_THREADS = 2
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
    timing: Timing


class RestoreQueue:
    """Takes uploads, gives answers."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._inference = ThreadPoolExecutor(1, "inference")
        self._codecs = ThreadPoolExecutor(NUM_CODEC_THREADS, "codec")
        self._room_for_decoded = asyncio.Semaphore(settings.max_decoded_photos)
        self._limits = PhotoLimits(max_pixels=settings.max_pixels, max_side_px=settings.max_side_px)
        self._max_jobs = settings.max_queued_requests
        self._deadline_seconds = settings.deadline_seconds
        self._metrics = metrics
        self._jobs: set[asyncio.Task[Restored]] = set()
        self.is_draining = False
        metrics.in_progress.set_function(lambda: self.num_jobs)

    def drain(self) -> None:
        """Finish what is here, take nothing new."""
        self.is_draining = True

    @property
    def num_jobs(self) -> int:
        """Requests waiting or in the works."""
        return len(self._jobs)

    def close(self) -> None:
        """Wait for what runs in the threads, and end them."""
        for executor in (self._inference, self._codecs):
            executor.shutdown(wait=True, cancel_futures=True)

    def check_open(self) -> None:
        """Raises Draining or QueueFull: worth asking before an upload is read."""
        if self.is_draining:
            raise Draining("the service is about to stop; send the photo again, another instance may take it")
        if self.num_jobs >= self._max_jobs:
            raise QueueFull(f"{self.num_jobs} requests are waiting already, which is the limit; try again later")

    async def restore(self, restorer: Restorer, upload: Upload, query: RestoreQuery) -> Restored:
        """Raises PhotoError, InvalidOption, Draining, QueueFull, and DeadlineExceeded.

        A request past its deadline is dropped at once if it was waiting; a step that runs finishes in the background.
        """
        self.check_open()
        job = asyncio.create_task(self._work(restorer, upload, query))
        self._jobs.add(job)
        job.add_done_callback(self._finish)
        try:
            done, _ = await asyncio.wait({job}, timeout=self._deadline_seconds)
        except asyncio.CancelledError:
            job.cancel()
            raise
        if not done:
            job.cancel()
            raise DeadlineExceeded(f"the photo was not restored within {self._deadline_seconds:g} seconds")
        return job.result()

    def _finish(self, job: asyncio.Task[Restored]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            log.debug("not restored", error=type(error).__name__)

    async def _work(self, restorer: Restorer, upload: Upload, query: RestoreQuery) -> Restored:
        started_seconds = time.perf_counter()
        async with self._room_for_decoded:
            (photo, options), decode_seconds = await call_in(self._codecs, decode_upload, upload, query, self._limits)
            restoration, infer_seconds = await call_in(self._inference, restorer.restore, photo, options)
            version = restorer.release.version
            answer, encode_seconds = await call_in(self._codecs, encode_answer, photo, restoration, query, version)
        busy_seconds = decode_seconds + infer_seconds + encode_seconds
        queue_seconds = time.perf_counter() - started_seconds - busy_seconds
        timing = Timing(queue_seconds, decode_seconds, infer_seconds, encode_seconds)
        self._measure(photo, restoration, timing)
        return Restored(answer, restoration.damage_ratio, timing)

    def _measure(self, photo: Photo, restoration: Restoration, timing: Timing) -> None:
        self._metrics.queue_seconds.observe(timing.queue_seconds)
        self._metrics.decode_seconds.observe(timing.decode_seconds)
        self._metrics.infer_seconds.observe(timing.infer_seconds)
        self._metrics.encode_seconds.observe(timing.encode_seconds)
        self._metrics.pixels.inc(photo.height_px * photo.width_px)
        self._metrics.damage_ratio.observe(restoration.damage_ratio)


def decode_upload(upload: Upload, query: RestoreQuery, limits: PhotoLimits) -> tuple[Photo, RestoreOptions]:
    """Raises PhotoError for the photo, InvalidOption for a mask."""
    photo = decode_photo(upload.image, limits)
    options = RestoreOptions(
        mode=query.mode,
        sensitivity=query.sensitivity,
        damage=decode_mask("damage", upload.damage, limits),
        protect=decode_mask("protect", upload.protect, limits),
    )
    return photo, options


def decode_mask(field: str, encoded: bytes | None, limits: PhotoLimits) -> np.ndarray | None:
    """(H, W) bool, True where the mask is bright; None without one. Raises InvalidOption naming the field."""
    if encoded is None:
        return None
    try:
        mask = decode_photo(encoded, limits)
    except PhotoError as error:
        raise InvalidOption(f"the field {field!r} is no mask: {error}") from error
    is_marked: np.ndarray = mask.colour().max(axis=2) >= MASK_THRESHOLD
    return is_marked
