"""Photos sent by so many callers at a time, and how long each took."""

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx

from benchmarks.running import ANSWER_SECONDS

Send = Callable[[httpx.Client, str, bytes], float]
"""Client, address and photo to the seconds from request to answer."""


@dataclass(frozen=True)
class Load:
    """seconds: of each photo, from request to answer; wall_seconds: from the first request to the last answer."""

    seconds: Sequence[float]
    wall_seconds: float

    @property
    def photos_per_second(self) -> float:
        return len(self.seconds) / self.wall_seconds

    def percentile(self, percent: int) -> float:
        """Seconds within which so many of a hundred photos were answered."""
        if len(self.seconds) == 1:
            return self.seconds[0]
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[percent - 1]


def send_all(send: Send, address: str, photos: Sequence[bytes], concurrency: int) -> Load:
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    with httpx.Client(timeout=ANSWER_SECONDS, limits=limits) as client, ThreadPoolExecutor(concurrency) as callers:
        started_seconds = time.perf_counter()
        seconds = list(callers.map(lambda photo: send(client, address, photo), photos))
        return Load(seconds, time.perf_counter() - started_seconds)
