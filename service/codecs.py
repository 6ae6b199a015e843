"""Photos decoded and encoded, each call in a process of its own, with what it may take of time and memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np

from restoration.errors import InvalidOption, PhotoUnsafe
from restoration.photo import Depth, History, Photo, PhotoFormat, PhotoLimits
from restoration.photo_kinds import recognise_format
from service.codec_calls import count_pixels, decode_bounded, encode_map, encode_photo, measure_photo
from service.codec_pool import CodecPool, NoRoom, NoWorker, WorkerDied, WorkerLost, WorkerOutOfMemory
from service.errors import CodecUnavailable, NoRoomForFiles
from service.metrics import Metrics
from service.settings import Settings

SMALL_PIXELS = 4_000_000
"""A photo of at most so many is a small one."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Codec:
    """What one lane decodes and encodes with; to be called from threads. Every call may raise NoRoomForFiles.

    A worker that dies in a call, or before it, may have been killed by somebody else: the call is made once more before
    the photo or the service is blamed.
    """

    pool: CodecPool
    limits: PhotoLimits
    max_metadata_bytes: int
    decode_timeout_seconds: float
    encode_timeout_seconds: float
    metrics: Metrics

    @classmethod
    def open(cls, settings: Settings, metrics: Metrics) -> "Codec":
        return cls(
            CodecPool(settings.num_codec_processes, settings.codec_memory_bytes),
            PhotoLimits(settings.max_pixels, settings.max_side_px, settings.max_pages),
            settings.max_metadata_bytes,
            settings.decode_timeout_seconds,
            settings.deadline_seconds,
            metrics,
        )

    def measure(self, encoded: bytes) -> tuple[int, int]:
        """See `measure_photo`. Raises PhotoUnsafe and CodecUnavailable besides."""
        recognise_format(encoded)  # nothing else is even handed on
        return self._call_on_photo(self.decode_timeout_seconds, measure_photo, encoded, self.limits)

    def count_pixels(self, encoded: bytes) -> int:
        """See `count_pixels`. Raises PhotoUnsafe and CodecUnavailable besides."""
        recognise_format(encoded)
        return self._call_on_photo(self.decode_timeout_seconds, count_pixels, encoded, self.limits)

    def decode(self, encoded: bytes, num_pixels: int) -> Photo:
        """See `decode_bounded`. Raises PhotoUnsafe and CodecUnavailable besides. num_pixels: as measured;
        one of more than 4 megapixels may take as much longer as it is larger."""
        timeout_seconds = self.decode_timeout_seconds * max(1.0, num_pixels / SMALL_PIXELS)
        return self._call_on_photo(timeout_seconds, decode_bounded, encoded, self.limits, self.max_metadata_bytes)

    def encode(
        self,
        photo: Photo,
        samples: np.ndarray,
        *,
        further_pages: Sequence[np.ndarray] = (),
        format: PhotoFormat | None = None,
        quality: int | None = None,
        depth: Depth = "same",
        history: History | None = None,
        is_denoised: bool = False,
    ) -> bytes:
        """See `encode_photo`. Raises CodecUnavailable besides."""
        is_converted = format not in (None, photo.format) or quality is not None or depth != "same"
        if not is_converted and _are_own(photo, (samples, *further_pages)):
            return photo.encoded  # `encode_photo` would say the same, but would have to be sent all of it first
        try:
            return self._call(
                self.encode_timeout_seconds,
                encode_photo,
                photo,
                samples,
                further_pages=further_pages,
                format=format,
                quality=quality,
                depth=depth,
                history=history,
                is_denoised=is_denoised,
            )
        except WorkerOutOfMemory as error:
            raise InvalidOption(
                f"encoding the photo as {format or photo.format} takes more memory than it may; ask for another format"
            ) from error
        except WorkerLost as error:
            raise CodecUnavailable(f"the answer could not be encoded: {error}; try again") from error

    def encode_map(self, damage_map: np.ndarray) -> bytes:
        """See `encode_map`. Raises CodecUnavailable."""
        try:
            return self._call(self.encode_timeout_seconds, encode_map, damage_map)
        except WorkerLost as error:
            raise CodecUnavailable(f"the damage map could not be encoded: {error}; try again") from error

    def _call_on_photo(
        self, timeout_seconds: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        try:
            return self._call(timeout_seconds, function, *args, **kwargs)
        except WorkerLost as error:
            raise PhotoUnsafe(
                f"the photo cannot be decoded safely: {error}; send it again from the original, or save it anew"
            ) from error

    def _call(self, timeout_seconds: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self._call_once(timeout_seconds, function, *args, **kwargs)
        except (WorkerDied, CodecUnavailable):
            return self._call_once(timeout_seconds, function, *args, **kwargs)

    def _call_once(self, timeout_seconds: float, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return self.pool.call(timeout_seconds, function, *args, **kwargs)
        except WorkerLost as error:
            self.metrics.codec_workers_lost.labels(error.reason).inc()
            raise
        except NoWorker as error:
            raise CodecUnavailable(f"{error}; try again later") from error
        except NoRoom as error:
            raise NoRoomForFiles(f"there is no room for temporary files: {error}; try again later") from error


def _are_own(photo: Photo, all_samples: Sequence[np.ndarray]) -> bool:
    """Whether they are the photo's own arrays, page by page: then nothing was restored."""
    return all(samples is page.samples for samples, page in zip(all_samples, photo.pages, strict=True))
