"""What becomes of memory that was freed: kept for the next batch, given back after a stage of a scan.

Both are glibc's; with another C library nothing happens.
"""

import ctypes
import os
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""As <malloc.h> has them."""
MOST_KEPT_BYTES = 1 << 28
LARGEST_KEPT_BYTES = 1 << 25
"""Of one piece: glibc takes no higher M_MMAP_THRESHOLD."""
LARGE_PIXELS = 4_000_000
"""Of a smaller photo it is not worth a call."""


def keep_freed_memory() -> None:
    """To be called where batches are computed: activations of a batch, or what a GPU gave, take the memory of the last.

    By default memory of several MB goes back to the system as soon as it is freed, and is mapped, zeroed and paged in
    anew: some ten thousand page faults a batch, for which threads wait for each other. And what one thread has freed
    another may have: those that start after this share as many arenas as there are cores.
    """
    with suppress(AttributeError, OSError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, max(2, len(os.sched_getaffinity(0))))
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        libc.mallopt(M_TRIM_THRESHOLD, MOST_KEPT_BYTES)


def give_back_freed_memory(num_pixels: int | None = None) -> None:
    """To be called between the stages of a photo of so many pixels, and its bands where most is held: what one has
    freed is not the next one's. And, without a number, after what comes seldom."""
    if num_pixels is None or num_pixels > LARGE_PIXELS:
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
