"""How much a key may ask for: requests and megapixels a minute, each from a token bucket.

A bucket fills steadily up to its burst. What costs more than the bucket can ever hold waits for a full one and leaves
it in debt: a large scan goes through, and its caller waits for the next one so much longer.
"""

import time
from collections.abc import Callable

from service.errors import QuotaExceeded

PIXELS_PER_MEGAPIXEL = 1_000_000
SMALLEST_SHARE = 1e-9
"""What is missing of a token by rounding, when exactly the time was waited that it takes."""

now_seconds: Callable[[], float] = time.monotonic
"""Never set back, nor forward, with the clock on the wall."""


class TokenBucket:
    """Full at first. To be used by one thread."""

    def __init__(self, tokens_per_minute: float, burst: float | None = None) -> None:
        """burst: the most tokens that can be saved up; a minute's worth by default."""
        self._tokens_per_second = tokens_per_minute / 60
        self._capacity = tokens_per_minute if burst is None else burst
        self._level = self._capacity
        self._filled_at_seconds = now_seconds()

    def wait_seconds(self, cost: float) -> float:
        """How long until `cost` can be taken; 0.0 if it can be now."""
        self._fill()
        missing = min(cost, self._capacity) - self._level
        return missing / self._tokens_per_second if missing > SMALLEST_SHARE else 0.0

    def take(self, cost: float) -> None:
        self._fill()
        self._level -= cost

    def _fill(self) -> None:
        now = now_seconds()
        gained = (now - self._filled_at_seconds) * self._tokens_per_second
        self._level = min(self._capacity, self._level + gained)
        self._filled_at_seconds = now


class Quota:
    """What one key has left; a bucket that is None is no limit."""

    def __init__(self, requests: TokenBucket | None = None, megapixels: TokenBucket | None = None) -> None:
        self._requests = requests
        self._megapixels = megapixels

    def charge_request(self) -> None:
        """Raises QuotaExceeded, and then charges nothing."""
        if wait_seconds := self._wait_for_request():
            raise QuotaExceeded("the key's requests a minute are used up", wait_seconds)
        if self._requests:
            self._requests.take(1)

    def charge_photo(self, num_pixels: int) -> None:
        """Raises QuotaExceeded, and then charges nothing; it says when both the photo and its request will pass."""
        if self._megapixels is None:
            return
        megapixels = num_pixels / PIXELS_PER_MEGAPIXEL
        if wait_seconds := self._megapixels.wait_seconds(megapixels):
            raise QuotaExceeded(
                f"the photo has {megapixels:.1f} megapixels, and the key's megapixels a minute are used up",
                max(wait_seconds, self._wait_for_request()),
            )
        self._megapixels.take(megapixels)

    def _wait_for_request(self) -> float:
        return self._requests.wait_seconds(1) if self._requests else 0.0
