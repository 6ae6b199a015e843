"""Memory that was freed, back to the system."""

import ctypes
from contextlib import suppress

LARGE_PIXELS = 4_000_000
"""Of a smaller photo it is not worth a call."""


def give_back_freed_memory(num_pixels: int) -> None:
    """To be called between the stages of a photo of so many pixels: what one has freed is not the next one's.

    glibc keeps what was freed in each thread's arena, 500 MB after a scan of 100 megapixels was looked at. Does nothing
    with another C library.
    """
    if num_pixels > LARGE_PIXELS:
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
